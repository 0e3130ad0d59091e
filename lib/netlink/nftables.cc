#include "lib/netlink/nftables.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>

#include <cerrno>
#include <memory>

#include "absl/base/const_init.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::netlink {
namespace {

// The functions of libnftables we call, found at run time.
struct Library {
  decltype(&::nft_ctx_new) make_context = nullptr;
  decltype(&::nft_ctx_free) free_context = nullptr;
  decltype(&::nft_ctx_buffer_output) buffer_output = nullptr;
  decltype(&::nft_ctx_buffer_error) buffer_error = nullptr;
  decltype(&::nft_ctx_get_error_buffer) error_text = nullptr;
  decltype(&::nft_run_cmd_from_buffer) run = nullptr;
};

template <typename Function>
bool Find(void* handle, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(::dlsym(handle, name));
  return *function != nullptr;
}

absl::StatusOr<Library> LoadLibrary() {
  constexpr absl::string_view kRemedy = "; install the package libnftables1";
  // Never closed: the library keeps state of its own between contexts.
  void* handle = ::dlopen("libnftables.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("load libnftables: ", ::dlerror(), kRemedy));
  }
  Library library;
  if (!Find(handle, "nft_ctx_new", &library.make_context) ||
      !Find(handle, "nft_ctx_free", &library.free_context) ||
      !Find(handle, "nft_ctx_buffer_output", &library.buffer_output) ||
      !Find(handle, "nft_ctx_buffer_error", &library.buffer_error) ||
      !Find(handle, "nft_ctx_get_error_buffer", &library.error_text) ||
      !Find(handle, "nft_run_cmd_from_buffer", &library.run)) {
    return absl::FailedPreconditionError(
        absl::StrCat("libnftables lacks a function we need", kRemedy));
  }
  return library;
}

// Its parser and caches are not made for two threads at once.
absl::Mutex library_mutex(absl::kConstInit);

nfgenmsg Header(uint16_t resource) {
  nfgenmsg header{};
  header.nfgen_family = NFPROTO_IPV4;
  header.version = NFNETLINK_V0;
  header.res_id = htons(resource);
  return header;
}

constexpr uint16_t Message(int message) {
  return static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | message);
}

void PutBracket(Batch& batch, uint16_t message) {
  batch.BeginUnanswered(message, 0);
  nfgenmsg header = Header(NFNL_SUBSYS_NFTABLES);
  header.nfgen_family = AF_UNSPEC;
  batch.PutStruct(header);
}

// Counts the messages of a dump that are about `table`. The kernel filters by table only for rules.
absl::StatusOr<int> Count(Socket& netfilter, int request, int answer, uint16_t table_attribute,
                          const std::string& table) {
  Batch batch;
  batch.Begin(Message(request), NLM_F_DUMP, absl::StrCat("read the nftables table '", table, "'"));
  batch.PutStruct(Header(0));
  batch.PutString(table_attribute, table);
  int count = 0;
  absl::Status status = netfilter.Query(
      batch,
      [&](uint16_t type, absl::string_view body) {
        if (type != Message(answer) || body.size() < sizeof(nfgenmsg)) return;
        const Attributes attributes(body.substr(sizeof(nfgenmsg)));
        if (attributes.GetString(table_attribute) == table) ++count;
      },
      [&] { count = 0; });
  if (status.code() == absl::StatusCode::kNotFound) return 0;
  if (!status.ok()) return status;
  return count;
}

}  // namespace

absl::Status ApplyRuleset(const std::string& commands) {
  absl::MutexLock lock(&library_mutex);
  static const absl::StatusOr<Library>* const library = new absl::StatusOr<Library>(LoadLibrary());
  if (!library->ok()) return library->status();
  // A new context each time: its socket belongs to the namespace of the thread that makes it.
  std::unique_ptr<nft_ctx, decltype((*library)->free_context)> context(
      (*library)->make_context(NFT_CTX_DEFAULT), (*library)->free_context);
  if (context == nullptr) return absl::ResourceExhaustedError("make an nftables context");
  (*library)->buffer_output(context.get());
  (*library)->buffer_error(context.get());
  if ((*library)->run(context.get(), commands.c_str()) == 0) return absl::OkStatus();
  const absl::string_view said = absl::StripAsciiWhitespace((*library)->error_text(context.get()));
  const std::string message =
      absl::StrCat("change the nftables rules: ", EscapeForTerminal(said.substr(0, 500)));
  // nft passes on the kernel's "no such thing" for kernels built without the expression asked for.
  const bool kernel = said.find("Could not process rule") != absl::string_view::npos;
  return kernel ? absl::FailedPreconditionError(message) : absl::InvalidArgumentError(message);
}

void OpenTransaction(Batch& batch) { PutBracket(batch, NFNL_MSG_BATCH_BEGIN); }
void CloseTransaction(Batch& batch) { PutBracket(batch, NFNL_MSG_BATCH_END); }

void MapElements::Add(Batch& batch, absl::string_view key, absl::string_view data) const {
  Put(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE, key, data);
}

void MapElements::Remove(Batch& batch, absl::string_view key) const {
  // Without data: the key alone names the element.
  Put(batch, NFT_MSG_DELSETELEM, 0, key, "");
}

void MapElements::Put(Batch& batch, uint16_t message, uint16_t flags, absl::string_view key,
                      absl::string_view data) const {
  batch.Begin(Message(message), flags,
              absl::StrCat("change map '", map_, "' of the nftables table '", table_, "'"));
  batch.PutStruct(Header(0));
  batch.PutString(NFTA_SET_ELEM_LIST_TABLE, table_);
  batch.PutString(NFTA_SET_ELEM_LIST_SET, map_);
  const size_t list = batch.OpenNest(NFTA_SET_ELEM_LIST_ELEMENTS);
  const size_t element = batch.OpenNest(NFTA_LIST_ELEM);
  const size_t key_nest = batch.OpenNest(NFTA_SET_ELEM_KEY);
  batch.PutBytes(NFTA_DATA_VALUE, key);
  batch.CloseNest(key_nest);
  if (!data.empty()) {
    const size_t data_nest = batch.OpenNest(NFTA_SET_ELEM_DATA);
    batch.PutBytes(NFTA_DATA_VALUE, data);
    batch.CloseNest(data_nest);
  }
  batch.CloseNest(element);
  batch.CloseNest(list);
}

absl::StatusOr<TableContents> ReadTable(Socket& netfilter, const std::string& table) {
  TableContents contents;
  ASSIGN_OR_RETURN(contents.chains,
                   Count(netfilter, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, NFTA_CHAIN_TABLE, table));
  ASSIGN_OR_RETURN(contents.rules,
                   Count(netfilter, NFT_MSG_GETRULE, NFT_MSG_NEWRULE, NFTA_RULE_TABLE, table));
  return contents;
}

bool MentionsDeletion(absl::string_view datagram, absl::string_view table, uint32_t own_port) {
  bool mentioned = false;
  ForEachMessage(datagram, [&](const nlmsghdr& header, absl::string_view body) {
    const uint16_t type = header.nlmsg_type;
    if (header.nlmsg_pid == own_port) return;
    if (type != Message(NFT_MSG_DELTABLE) && type != Message(NFT_MSG_DELCHAIN) &&
        type != Message(NFT_MSG_DELRULE) && type != Message(NFT_MSG_DELSET) &&
        type != Message(NFT_MSG_DELSETELEM)) {
      return;
    }
    if (body.size() < sizeof(nfgenmsg)) return;
    // The attribute with the table's name is the first of all five.
    static_assert(NFTA_TABLE_NAME == 1 && NFTA_CHAIN_TABLE == 1 && NFTA_RULE_TABLE == 1 &&
                  NFTA_SET_TABLE == 1 && NFTA_SET_ELEM_LIST_TABLE == 1);
    mentioned =
        mentioned || Attributes(body.substr(sizeof(nfgenmsg))).GetString(NFTA_TABLE_NAME) == table;
  });
  return mentioned;
}

absl::StatusOr<std::vector<std::string>> ListMapKeys(Socket& netfilter, const std::string& table,
                                                     const std::string& map) {
  Batch batch;
  batch.Begin(Message(NFT_MSG_GETSETELEM), NLM_F_DUMP,
              absl::StrCat("read map '", map, "' of the nftables table '", table, "'"));
  batch.PutStruct(Header(0));
  batch.PutString(NFTA_SET_ELEM_LIST_TABLE, table);
  batch.PutString(NFTA_SET_ELEM_LIST_SET, map);
  std::vector<std::string> keys;
  RETURN_IF_ERROR(netfilter.Query(
      batch,
      [&](uint16_t type, absl::string_view body) {
        if (type != Message(NFT_MSG_NEWSETELEM) || body.size() < sizeof(nfgenmsg)) return;
        absl::string_view list =
            Attributes(body.substr(sizeof(nfgenmsg))).Get(NFTA_SET_ELEM_LIST_ELEMENTS);
        ForEachAttribute(list, [&](uint16_t, absl::string_view element) {
          const Attributes key(Attributes(element).Get(NFTA_SET_ELEM_KEY));
          keys.emplace_back(key.Get(NFTA_DATA_VALUE));
        });
      },
      [&] { keys.clear(); }));
  return keys;
}

}  // namespace gantry::netlink

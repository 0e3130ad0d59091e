#include "lib/netlink/socket.h"

#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status.h"
#include "lib/base/text.h"
#include "lib/sys/errno.h"

namespace gantry::netlink {
namespace {

// The routing lock of the kernel may be held for seconds while namespaces are torn down elsewhere.
constexpr timeval kAnswerTimeout = {30, 0};
constexpr size_t kReceiveBytes = 64 << 10;  // What the kernel fills at most per datagram of a dump.
constexpr int kDumpAttempts = 10;

// Header of a message or attribute at `bytes`; memcpy because received bytes have no alignment.
template <typename Struct>
Struct ReadStruct(absl::string_view bytes) {
  Struct value{};
  if (bytes.size() >= sizeof(value)) std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

// Takes one message off the front of `datagram`. False at its end or when it is malformed.
bool NextMessage(absl::string_view& datagram, nlmsghdr* header, absl::string_view* body) {
  *header = ReadStruct<nlmsghdr>(datagram);
  if (header->nlmsg_len < sizeof(nlmsghdr) || header->nlmsg_len > datagram.size()) return false;
  *body = datagram.substr(sizeof(nlmsghdr), header->nlmsg_len - sizeof(nlmsghdr));
  datagram.remove_prefix(std::min<size_t>(NLMSG_ALIGN(header->nlmsg_len), datagram.size()));
  return true;
}

// The kernel's own words about an error, " (…)", or "".
std::string Explanation(const nlmsghdr& header, absl::string_view body) {
  if ((header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return "";
  size_t skip = sizeof(nlmsgerr);
  if ((header.nlmsg_flags & NLM_F_CAPPED) == 0) {
    // The request is repeated in full after its header, which nlmsgerr holds already.
    const uint32_t request_bytes = ReadStruct<nlmsgerr>(body).msg.nlmsg_len;
    if (request_bytes >= sizeof(nlmsghdr)) skip += NLMSG_ALIGN(request_bytes - sizeof(nlmsghdr));
  }
  if (skip >= body.size()) return "";
  const std::string text = Attributes(body.substr(skip)).GetString(NLMSGERR_ATTR_MSG);
  return text.empty() ? "" : absl::StrCat(" (", EscapeForTerminal(text), ")");
}

absl::Status KernelError(const nlmsghdr& header, absl::string_view body,
                         absl::string_view attempt) {
  const int error = -ReadStruct<nlmsgerr>(body).error;
  return sys::ErrnoError(error, absl::StrCat(attempt, Explanation(header, body)));
}

}  // namespace

void Batch::Begin(uint16_t type, uint16_t flags, absl::string_view attempt, int tolerated) {
  requests_.push_back({bytes_.size(), std::string(attempt), tolerated, true});
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
  Append(&header, sizeof(header));
}

void Batch::BeginUnanswered(uint16_t type, uint16_t flags) {
  requests_.push_back({bytes_.size(), "", 0, false});
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_flags = NLM_F_REQUEST | flags;
  Append(&header, sizeof(header));
}

void Batch::Append(const void* data, size_t size) {
  bytes_.append(static_cast<const char*>(data), size);
  bytes_.resize(NLMSG_ALIGN(bytes_.size()));
  // The request begun last reaches to the end, always.
  const size_t offset = requests_.back().offset;
  const auto length = static_cast<uint32_t>(bytes_.size() - offset);
  std::memcpy(&bytes_[offset], &length, sizeof(length));  // nlmsg_len comes first.
}

void Batch::PutBytes(uint16_t attribute, absl::string_view bytes) {
  const nlattr header{static_cast<uint16_t>(NLA_HDRLEN + bytes.size()), attribute};
  Append(&header, sizeof(header));
  Append(bytes.data(), bytes.size());
}

void Batch::PutString(uint16_t attribute, absl::string_view text) {
  PutBytes(attribute, absl::StrCat(text, absl::string_view("\0", 1)));
}

void Batch::PutU32(uint16_t attribute, uint32_t value) {
  PutBytes(attribute, absl::string_view(reinterpret_cast<const char*>(&value), sizeof(value)));
}

size_t Batch::OpenNest(uint16_t attribute) {
  const size_t nest = bytes_.size();
  const nlattr header{0, static_cast<uint16_t>(attribute | NLA_F_NESTED)};
  Append(&header, sizeof(header));
  return nest;
}

void Batch::CloseNest(size_t nest) {
  const auto length = static_cast<uint16_t>(bytes_.size() - nest);
  std::memcpy(&bytes_[nest], &length, sizeof(length));  // nla_len comes first.
}

void ForEachAttribute(absl::string_view bytes,
                      const std::function<void(uint16_t, absl::string_view)>& each) {
  while (bytes.size() >= sizeof(nlattr)) {
    const auto header = ReadStruct<nlattr>(bytes);
    if (header.nla_len < NLA_HDRLEN || header.nla_len > bytes.size()) return;
    each(header.nla_type & NLA_TYPE_MASK, bytes.substr(NLA_HDRLEN, header.nla_len - NLA_HDRLEN));
    bytes.remove_prefix(std::min<size_t>(NLA_ALIGN(header.nla_len), bytes.size()));
  }
}

void ForEachMessage(absl::string_view datagram,
                    const std::function<void(const nlmsghdr&, absl::string_view)>& each) {
  nlmsghdr header;
  absl::string_view body;
  while (NextMessage(datagram, &header, &body)) each(header, body);
}

Attributes::Attributes(absl::string_view bytes) {
  ForEachAttribute(bytes, [this](uint16_t attribute, absl::string_view payload) {
    all_.emplace_back(attribute, payload);
  });
}

absl::string_view Attributes::Get(uint16_t attribute) const {
  for (const auto& [number, payload] : all_) {
    if (number == attribute) return payload;
  }
  return {};
}

uint32_t Attributes::GetU32(uint16_t attribute) const {
  return ReadStruct<uint32_t>(Get(attribute));
}

std::string Attributes::GetString(uint16_t attribute) const {
  const absl::string_view payload = Get(attribute);
  return std::string(payload.substr(0, payload.find('\0')));
}

absl::StatusOr<Socket> Socket::Open(int protocol) {
  constexpr absl::string_view kAttempt = "open a netlink socket";
  sys::UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd.ok()) return sys::ErrnoError(errno, kAttempt);
  const int on = 1;
  // Explanations, and errors that do not repeat the request; both only make messages better.
  ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
  ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof(kAnswerTimeout)) !=
      0) {
    return sys::ErrnoError(errno, kAttempt);
  }
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  socklen_t size = sizeof(address);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return sys::ErrnoError(errno, kAttempt);
  }
  return Socket(std::move(fd), address.nl_pid);
}

absl::Status Socket::Send(Batch& batch) {
  for (const Batch::Request& request : batch.requests_) {
    auto header = ReadStruct<nlmsghdr>(absl::string_view(batch.bytes_).substr(request.offset));
    header.nlmsg_seq = ++sequence_;
    header.nlmsg_pid = port_;
    std::memcpy(&batch.bytes_[request.offset], &header, sizeof(header));
  }
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  ssize_t sent = 0;
  do {
    sent = ::sendto(fd_.get(), batch.bytes_.data(), batch.bytes_.size(), 0,
                    reinterpret_cast<sockaddr*>(&kernel), sizeof(kernel));
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    return sys::ErrnoError(errno, absl::StrCat(batch.requests_[0].attempt, ": send to netlink"));
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::string_view> Socket::Receive(absl::string_view what) {
  buffer_.resize(kReceiveBytes);
  ssize_t size = 0;
  do {
    size = ::recv(fd_.get(), buffer_.data(), buffer_.size(), 0);
  } while (size < 0 && errno == EINTR);
  if (size >= 0) return absl::string_view(buffer_).substr(0, size);
  if (errno == EAGAIN) {
    return absl::DeadlineExceededError(
        absl::StrCat(what, ": the kernel did not answer within ", kAnswerTimeout.tv_sec, " s"));
  }
  return sys::ErrnoError(errno, absl::StrCat(what, ": receive from netlink"));
}

absl::Status Socket::Execute(Batch& batch) {
  if (batch.empty()) return absl::OkStatus();
  const uint32_t first = sequence_ + 1;
  RETURN_IF_ERROR(Send(batch));

  size_t expected = 0;
  for (const Batch::Request& request : batch.requests_) expected += request.answered ? 1 : 0;
  absl::Status result;
  while (expected > 0) {
    ASSIGN_OR_RETURN(absl::string_view datagram, Receive(batch.requests_[0].attempt));
    nlmsghdr header;
    absl::string_view body;
    while (NextMessage(datagram, &header, &body)) {
      const uint32_t index = header.nlmsg_seq - first;
      if (header.nlmsg_type != NLMSG_ERROR || index >= batch.requests_.size()) continue;
      const Batch::Request& request = batch.requests_[index];
      const int error = -ReadStruct<nlmsgerr>(body).error;
      if (!request.answered) {
        // Only a batch that was refused as a whole is answered at its bracket.
        return KernelError(header, body, batch.requests_[1 % batch.requests_.size()].attempt);
      }
      --expected;
      if (error != 0 && error != request.tolerated && result.ok()) {
        result = KernelError(header, body, request.attempt);
      }
    }
  }
  return result;
}

absl::Status Socket::Query(Batch& batch,
                           const std::function<void(uint16_t, absl::string_view)>& each,
                           const std::function<void()>& restart) {
  for (int attempt = 0; attempt < kDumpAttempts; ++attempt) {
    bool interrupted = false;
    RETURN_IF_ERROR(QueryOnce(batch, each, &interrupted));
    if (!interrupted) return absl::OkStatus();
    restart();
  }
  return absl::UnavailableError(absl::StrCat(batch.requests_[0].attempt,
                                             ": the list changed during each of ", kDumpAttempts,
                                             " readings"));
}

absl::Status Socket::QueryOnce(Batch& batch,
                               const std::function<void(uint16_t, absl::string_view)>& each,
                               bool* interrupted) {
  RETURN_IF_ERROR(Send(batch));
  const std::string& attempt = batch.requests_[0].attempt;
  for (;;) {
    ASSIGN_OR_RETURN(absl::string_view datagram, Receive(attempt));
    nlmsghdr header;
    absl::string_view body;
    while (NextMessage(datagram, &header, &body)) {
      if (header.nlmsg_seq != sequence_) continue;
      if ((header.nlmsg_flags & NLM_F_DUMP_INTR) != 0) *interrupted = true;
      if (header.nlmsg_type == NLMSG_DONE) return absl::OkStatus();
      if (header.nlmsg_type == NLMSG_ERROR) {
        if (ReadStruct<nlmsgerr>(body).error == 0) return absl::OkStatus();  // After a single get.
        return KernelError(header, body, attempt);
      }
      each(header.nlmsg_type, body);
    }
  }
}

}  // namespace gantry::netlink

// Tables of the kernel's packet filter (nftables).
//
// Two ways in, for two needs. ApplyRuleset takes nft's own language and hands it to libnftables:
// readable, complete, and some milliseconds; for building a table. MapElements writes the elements
// of a map straight to the kernel: a tenth of a millisecond; for what changes with every container.
//
// libnftables is loaded when first needed (dlopen): it brings five libraries along, which every
// process of the multi-call binary would otherwise map and relocate for the sake of one.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/netlink/socket.h"

namespace gantry::netlink {

// Runs commands in nft's language, all of them or none, in the network namespace of the calling
// thread. Errors: FailedPrecondition — libnftables is not installed, or the kernel lacks what the
// rules need; InvalidArgument — what nft said. Thread-safe (one at a time).
absl::Status ApplyRuleset(const std::string& commands);

// The elements of one map of an "ip" table. Keys and data are the kernel's: in network order, and
// where they are concatenations, each field padded to four bytes. Thread-compatible.
class MapElements {
 public:
  MapElements(std::string table, std::string map)
      : table_(std::move(table)), map_(std::move(map)) {}

  // Puts the request for these into `batch`, between OpenTransaction and CloseTransaction.
  void Add(Batch& batch, absl::string_view key, absl::string_view data) const;
  void Remove(Batch& batch, absl::string_view key) const;

 private:
  void Put(Batch& batch, uint16_t message, uint16_t flags, absl::string_view key,
           absl::string_view data) const;

  std::string table_;
  std::string map_;
};

// What lies between the two takes effect as one, or not at all.
void OpenTransaction(Batch& batch);
void CloseTransaction(Batch& batch);

// How often things of an "ip" table are there. All 0: no such table.
struct TableContents {
  int chains = 0;
  int rules = 0;
};
absl::StatusOr<TableContents> ReadTable(Socket& netfilter, const std::string& table);

// The keys in a map of an "ip" table. Errors: NotFound — no such table or map.
absl::StatusOr<std::vector<std::string>> ListMapKeys(Socket& netfilter, const std::string& table,
                                                     const std::string& map);

// Whether a datagram of the group NFNLGRP_NFTABLES tells of something removed from `table` (of any
// family) by another socket than `own_port`.
bool MentionsDeletion(absl::string_view datagram, absl::string_view table, uint32_t own_port);

}  // namespace gantry::netlink

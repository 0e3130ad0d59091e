// What every handler does around its call of the domain.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/field_mask.pb.h"
#include "lib/base/status.h"
#include "lib/rpc/request.h"
#include "lib/rpc/status.h"
#include "services/metadata/caller.h"
#include "services/metadata/objects.h"

namespace gantry::metadata {

inline absl::StatusOr<Caller> CallerOf(const grpc::ServerContextBase& context) {
  ASSIGN_OR_RETURN(std::string namespace_name, rpc::RequestNamespace(context));
  return Caller{std::move(namespace_name), rpc::RequestLease(context)};
}

inline absl::Time DeadlineOf(const grpc::ServerContextBase& context) {
  return absl::FromChrono(context.deadline());
}

template <typename Strings>
std::vector<std::string> ToVector(const Strings& strings) {
  return std::vector<std::string>(strings.begin(), strings.end());
}

inline std::vector<std::string> MaskOf(const google::protobuf::FieldMask& mask) {
  return ToVector(mask.paths());
}

inline std::optional<absl::Time> OptionalTime(bool present,
                                              const google::protobuf::Timestamp& timestamp) {
  if (!present) return std::nullopt;
  return FromProto(timestamp);
}

// For a handler in a namespace: `call` takes the caller and answers a status.
template <typename Call>
grpc::Status InNamespace(const grpc::ServerContextBase* context, Call call) {
  absl::StatusOr<Caller> caller = CallerOf(*context);
  if (!caller.ok()) return rpc::ToGrpcStatus(caller.status());
  return rpc::ToGrpcStatus(call(*caller));
}

// Moves a value into a field of the response, or answers why there is none.
template <typename Value, typename Field>
absl::Status Assign(absl::StatusOr<Value> value, Field* field) {
  if (!value.ok()) return value.status();
  *field = *std::move(value);
  return absl::OkStatus();
}

template <typename Value, typename Field>
absl::Status AssignAll(absl::StatusOr<std::vector<Value>> values, Field* field) {
  if (!values.ok()) return values.status();
  for (Value& value : *values) *field->Add() = std::move(value);
  return absl::OkStatus();
}

}  // namespace gantry::metadata

// Compares protos/containerd with the tables of containerd's wire contract, in both directions.
//
// Tables and descriptors are turned into facts, one line of text each, such as
//   field containerd.types.Mount.type = 1: optional string
// so that a difference reads as the line that is missing on one side.

#include <cstddef>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "containerd/cgroups/v1/metrics.pb.h"
#include "containerd/cgroups/v2/metrics.pb.h"
#include "containerd/events/events.pb.h"
#include "containerd/google/rpc/status.pb.h"
#include "containerd/linux/runc/options.pb.h"
#include "containerd/runc/v1/options.pb.h"
#include "containerd/runtime/bootstrap/v1/bootstrap.pb.h"
#include "containerd/runtime/sandbox/v1/sandbox.pb.h"
#include "containerd/runtime/task/v2/task.pb.h"
#include "containerd/runtime/task/v3/task.pb.h"
#include "containerd/runtimeoptions/v1/options.pb.h"
#include "containerd/services/containers/v1/containers.pb.h"
#include "containerd/services/content/v1/content.pb.h"
#include "containerd/services/diff/v1/diff.pb.h"
#include "containerd/services/events/ttrpc/v1/events.pb.h"
#include "containerd/services/events/v1/events.pb.h"
#include "containerd/services/images/v1/images.pb.h"
#include "containerd/services/introspection/v1/introspection.pb.h"
#include "containerd/services/leases/v1/leases.pb.h"
#include "containerd/services/mounts/v1/mounts.pb.h"
#include "containerd/services/namespaces/v1/namespace.pb.h"
#include "containerd/services/sandbox/v1/sandbox.pb.h"
#include "containerd/services/snapshots/v1/snapshots.pb.h"
#include "containerd/services/streaming/v1/streaming.pb.h"
#include "containerd/services/tasks/v1/tasks.pb.h"
#include "containerd/services/transfer/v1/transfer.pb.h"
#include "containerd/services/version/v1/version.pb.h"
#include "containerd/ttrpc/ttrpc.pb.h"
#include "containerd/types/transfer/transfer.pb.h"
#include "containerd/types/types.pb.h"
#include "containerd/v1/types/task.pb.h"
#include "grpc/health/v1/health.pb.h"

namespace gantry {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::FileDescriptor;
using ::google::protobuf::MethodDescriptor;
using ::google::protobuf::ServiceDescriptor;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Facts = std::set<std::string>;
using Row = std::map<std::string, std::string>;

// Every file below protos/containerd, by one message of each. Naming the message also makes the
// linker take the file out of its library.
std::vector<const FileDescriptor*> ContractFiles() {
  const Descriptor* const messages[] = {
      ::containerd::events::TaskExit::descriptor(),
      ::containerd::linux::runc::RuncOptions::descriptor(),
      ::containerd::runc::v1::Options::descriptor(),
      ::containerd::runtime::bootstrap::v1::BootstrapParams::descriptor(),
      ::containerd::runtime::sandbox::v1::CreateSandboxRequest::descriptor(),
      ::containerd::services::containers::v1::Container::descriptor(),
      ::containerd::services::content::v1::Info::descriptor(),
      ::containerd::services::diff::v1::ApplyRequest::descriptor(),
      ::containerd::services::events::ttrpc::v1::ForwardRequest::descriptor(),
      ::containerd::services::events::v1::ForwardRequest::descriptor(),
      ::containerd::services::images::v1::Image::descriptor(),
      ::containerd::services::introspection::v1::Plugin::descriptor(),
      ::containerd::services::leases::v1::Lease::descriptor(),
      ::containerd::services::mounts::v1::ActivateRequest::descriptor(),
      ::containerd::services::namespaces::v1::Namespace::descriptor(),
      ::containerd::services::sandbox::v1::StoreCreateRequest::descriptor(),
      ::containerd::services::snapshots::v1::Info::descriptor(),
      ::containerd::services::streaming::v1::StreamInit::descriptor(),
      ::containerd::services::tasks::v1::CreateTaskRequest::descriptor(),
      ::containerd::services::transfer::v1::TransferRequest::descriptor(),
      ::containerd::services::version::v1::VersionResponse::descriptor(),
      ::containerd::task::v2::CreateTaskRequest::descriptor(),
      ::containerd::task::v3::CreateTaskRequest::descriptor(),
      ::containerd::types::Mount::descriptor(),
      ::containerd::types::transfer::OCIRegistry::descriptor(),
      ::containerd::v1::types::Process::descriptor(),
      ::google::rpc::Status::descriptor(),
      ::io::containerd::cgroups::v1::Metrics::descriptor(),
      ::io::containerd::cgroups::v2::Metrics::descriptor(),
      ::runtimeoptions::v1::Options::descriptor(),
      ::ttrpc::Request::descriptor(),
  };
  std::vector<const FileDescriptor*> files;
  for (const Descriptor* message : messages) files.push_back(message->file());
  return files;
}

// Reads a table of tab-separated columns whose first line names them.
std::vector<Row> ReadTable(const std::string& name) {
  std::ifstream in(absl::StrCat(GANTRY_CONTRACT_TABLES, "/", name));
  std::string line;
  if (!std::getline(in, line)) {
    ADD_FAILURE() << "no table '" << name << "' in " << GANTRY_CONTRACT_TABLES;
    return {};
  }
  const std::vector<std::string> columns = absl::StrSplit(line, '\t');

  std::vector<Row> rows;
  while (std::getline(in, line)) {
    const std::vector<std::string> cells = absl::StrSplit(line, '\t');
    EXPECT_EQ(cells.size(), columns.size()) << name << ": " << line;
    Row row;
    for (size_t i = 0; i < columns.size() && i < cells.size(); ++i) row[columns[i]] = cells[i];
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Row> MessageRows() {
  std::vector<Row> all;
  for (const char* table : {"messages.tsv", "ttrpc-messages.tsv", "runtime-options-messages.tsv",
                            "cgroup-metrics-messages.tsv"}) {
    for (Row& row : ReadTable(table)) all.push_back(std::move(row));
  }
  return all;
}

// Two messages became containerd.types.Envelope after 1.6, with equal field numbers; 1.6 peers
// cannot tell. Everything else a 1.6 client may send is in our files, later removed or not.
bool MovedWithoutTrace(const Row& row) {
  const std::string& message = row.at("message");
  return message == "containerd.services.events.v1.Envelope" ||
         message == "containerd.services.events.ttrpc.v1.Envelope";
}

// The contract's name of a field: ours differs by an underscore where C++ reserves the word.
std::string ContractName(const FieldDescriptor& field) {
  return field.name() == field.json_name() + "_" ? field.json_name() : field.name();
}

std::string TypeName(const FieldDescriptor& field) {
  if (field.type() == FieldDescriptor::TYPE_MESSAGE) return field.message_type()->full_name();
  if (field.type() == FieldDescriptor::TYPE_ENUM) return field.enum_type()->full_name();
  return field.type_name();
}

std::string FieldFact(const std::string& message, const std::string& name, absl::string_view number,
                      absl::string_view label, absl::string_view type, absl::string_view type_name,
                      absl::string_view oneof) {
  std::string fact =
      absl::StrCat("field ", message, ".", name, " = ", number, ": ", label, " ", type);
  if (!type_name.empty()) absl::StrAppend(&fact, " ", type_name);
  if (!oneof.empty()) absl::StrAppend(&fact, " in oneof ", oneof);
  return fact;
}

Facts FieldFactsOfTables() {
  Facts facts;
  for (const Row& row : MessageRows()) {
    if (MovedWithoutTrace(row)) continue;
    facts.insert(absl::StrCat("message ", row.at("message")));
    if (row.at("field").empty()) continue;  // the row of a message without fields
    facts.insert(FieldFact(row.at("message"), row.at("field"), row.at("number"), row.at("label"),
                           row.at("type"), row.at("type_name"), row.at("oneof")));
  }
  return facts;
}

void AddFieldFacts(const Descriptor& message, Facts& facts) {
  if (message.options().map_entry()) return;
  facts.insert(absl::StrCat("message ", message.full_name()));
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    std::string type = field.type_name();
    std::string type_name = TypeName(field) == type ? "" : TypeName(field);
    if (field.is_map()) {
      type = "map";
      type_name = absl::StrCat("map<", TypeName(*field.message_type()->map_key()), ",",
                               TypeName(*field.message_type()->map_value()), ">");
    }
    std::string oneof;
    if (field.real_containing_oneof() != nullptr) oneof = field.real_containing_oneof()->name();
    if (field.containing_oneof() != nullptr && oneof.empty()) oneof = "(proto3 optional)";
    facts.insert(FieldFact(message.full_name(), ContractName(field), absl::StrCat(field.number()),
                           field.is_repeated() ? "repeated" : "optional", type, type_name, oneof));
  }
  for (int i = 0; i < message.nested_type_count(); ++i) {
    AddFieldFacts(*message.nested_type(i), facts);
  }
}

std::string MethodFact(absl::string_view path, bool client_streaming, absl::string_view request,
                       bool server_streaming, absl::string_view response) {
  return absl::StrCat("method ", path, "(", client_streaming ? "stream " : "", request,
                      ") returns (", server_streaming ? "stream " : "", response, ")");
}

std::string EnumFact(absl::string_view type, absl::string_view value, absl::string_view number) {
  return absl::StrCat("enum ", type, ".", value, " = ", number);
}

void AddEnumFacts(const EnumDescriptor& type, Facts& facts) {
  for (int i = 0; i < type.value_count(); ++i) {
    facts.insert(
        EnumFact(type.full_name(), type.value(i)->name(), absl::StrCat(type.value(i)->number())));
  }
}

void AddEnumFacts(const Descriptor& message, Facts& facts) {
  for (int i = 0; i < message.enum_type_count(); ++i) AddEnumFacts(*message.enum_type(i), facts);
  for (int i = 0; i < message.nested_type_count(); ++i) {
    AddEnumFacts(*message.nested_type(i), facts);
  }
}

std::vector<std::string> Missing(const Facts& wanted, const Facts& found) {
  std::vector<std::string> missing;
  absl::c_set_difference(wanted, found, std::back_inserter(missing));
  return missing;
}

void ExpectSameFacts(const Facts& tables, const Facts& protos) {
  EXPECT_THAT(tables, Not(IsEmpty()));
  EXPECT_THAT(Missing(tables, protos), IsEmpty()) << "in the tables, not in protos/containerd";
  EXPECT_THAT(Missing(protos, tables), IsEmpty()) << "in protos/containerd, not in the tables";
}

TEST(ContractTablesTest, MessagesAndFieldsAreThoseOfTheTables) {
  const Facts tables = FieldFactsOfTables();

  Facts protos;
  for (const FileDescriptor* file : ContractFiles()) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      AddFieldFacts(*file->message_type(i), protos);
    }
  }

  ExpectSameFacts(tables, protos);
}

TEST(ContractTablesTest, MethodsAreThoseOfTheTables) {
  Facts tables;
  for (const Row& row : ReadTable("services.tsv")) {
    tables.insert(MethodFact(row.at("full_path"), row.at("client_streaming") == "true",
                             row.at("request_type"), row.at("server_streaming") == "true",
                             row.at("response_type")));
  }

  Facts protos;
  for (const FileDescriptor* file : ContractFiles()) {
    for (int i = 0; i < file->service_count(); ++i) {
      const ServiceDescriptor& service = *file->service(i);
      for (int j = 0; j < service.method_count(); ++j) {
        const MethodDescriptor& method = *service.method(j);
        protos.insert(MethodFact(absl::StrCat("/", service.full_name(), "/", method.name()),
                                 method.client_streaming(), method.input_type()->full_name(),
                                 method.server_streaming(), method.output_type()->full_name()));
      }
    }
  }

  ExpectSameFacts(tables, protos);
}

TEST(ContractTablesTest, EnumValuesAreThoseOfTheTables) {
  Facts tables;
  for (const Row& row : ReadTable("enums.tsv")) {
    tables.insert(EnumFact(row.at("enum"), row.at("value_name"), row.at("number")));
  }

  Facts protos;
  for (const FileDescriptor* file : ContractFiles()) {
    for (int i = 0; i < file->enum_type_count(); ++i) AddEnumFacts(*file->enum_type(i), protos);
    for (int i = 0; i < file->message_type_count(); ++i) {
      AddEnumFacts(*file->message_type(i), protos);
    }
  }

  ExpectSameFacts(tables, protos);
}

TEST(ContractTablesTest, EveryPackageOfTheTablesIsOneFile) {
  Facts tables;
  for (const Row& row : MessageRows()) tables.insert(row.at("package"));
  for (const Row& row : ReadTable("services.tsv")) tables.insert(row.at("package"));

  Facts protos;
  for (const FileDescriptor* file : ContractFiles()) protos.insert(file->package());

  ExpectSameFacts(tables, protos);
  EXPECT_THAT(ContractFiles(), SizeIs(protos.size()));
}

TEST(ContractTablesTest, OnlyFieldsNamedLikeCppKeywordsAreRenamed) {
  Facts renamed;
  for (const FileDescriptor* file : ContractFiles()) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      const Descriptor& message = *file->message_type(i);
      for (int j = 0; j < message.field_count(); ++j) {
        if (ContractName(*message.field(j)) != message.field(j)->name()) {
          renamed.insert(message.field(j)->full_name());
        }
      }
    }
  }

  EXPECT_THAT(renamed,
              testing::ElementsAre("containerd.services.introspection.v1.Plugin.requires_"));
}

TEST(ContractTablesTest, HealthIsThatOfTheGrpcProject) {
  using ::grpc::health::v1::HealthCheckResponse;

  const FileDescriptor& file = *HealthCheckResponse::descriptor()->file();
  const ServiceDescriptor* health = file.FindServiceByName("Health");

  ASSERT_NE(health, nullptr);
  EXPECT_EQ(health->full_name(), "grpc.health.v1.Health");
  ASSERT_NE(health->FindMethodByName("Check"), nullptr);
  EXPECT_FALSE(health->FindMethodByName("Check")->server_streaming());
  ASSERT_NE(health->FindMethodByName("Watch"), nullptr);
  EXPECT_TRUE(health->FindMethodByName("Watch")->server_streaming());
  EXPECT_EQ(HealthCheckResponse::SERVING, 1);
  EXPECT_EQ(HealthCheckResponse::SERVICE_UNKNOWN, 3);
}

}  // namespace
}  // namespace gantry

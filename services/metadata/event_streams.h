// The services of the journal: containerd's Events and our Journal. Streams use the callback API,
// so that any number of subscribers costs no threads.
#pragma once

#include "containerd/services/events/v1/events.grpc.pb.h"
#include "gantry/metadata/v1/metadata.grpc.pb.h"
#include "services/metadata/journal.h"

namespace gantry::metadata {

namespace events_v1 = containerd::services::events::v1;

// Thread-safe.
class EventsService final
    : public events_v1::Events::WithCallbackMethod_Subscribe<events_v1::Events::Service> {
 public:
  explicit EventsService(Journal& journal) : journal_(journal) {}
  grpc::Status Publish(grpc::ServerContext* context, const events_v1::PublishRequest* request,
                       google::protobuf::Empty*) override;
  grpc::Status Forward(grpc::ServerContext* context, const events_v1::ForwardRequest* request,
                       google::protobuf::Empty*) override;
  grpc::ServerWriteReactor<containerd::types::Envelope>* Subscribe(
      grpc::CallbackServerContext* context, const events_v1::SubscribeRequest* request) override;

 private:
  Journal& journal_;
};

// Thread-safe.
class JournalService final : public v1::Journal::WithCallbackMethod_Read<v1::Journal::Service> {
 public:
  explicit JournalService(Journal& journal) : journal_(journal) {}
  grpc::ServerWriteReactor<v1::JournalEntry>* Read(grpc::CallbackServerContext* context,
                                                   const v1::ReadJournalRequest* request) override;
  grpc::Status Append(grpc::ServerContext* context, const v1::AppendJournalRequest* request,
                      v1::AppendJournalResponse* response) override;
  grpc::Status Status(grpc::ServerContext* context, const v1::JournalStatusRequest* request,
                      v1::JournalStatusResponse* response) override;

 private:
  Journal& journal_;
};

}  // namespace gantry::metadata

#include "shim/events.h"

namespace gantry::shim {
namespace {

Event IdOnly(const char* topic, const char* type_url, absl::string_view id) {
  Event event{topic, type_url, ""};
  pb::Writer(&event.payload).String(1, id);
  return event;
}

}  // namespace

Event TaskCreate(const CreateTaskRequest& request, int pid) {
  Event event{"/tasks/create", "containerd.events.TaskCreate", ""};
  pb::Writer writer(&event.payload);
  writer.String(1, request.id);
  writer.String(2, request.bundle);
  for (const sys::MountSpec& mount : request.rootfs) WriteMount(writer, 3, mount);
  writer.Message(4, [&](pb::Writer& io) {
    io.String(1, request.stdio.in);
    io.String(2, request.stdio.out);
    io.String(3, request.stdio.err);
    io.Bool(4, request.stdio.terminal);
  });
  writer.String(5, request.checkpoint);
  writer.Varint(6, static_cast<uint64_t>(pid));
  return event;
}

Event TaskStart(absl::string_view id, int pid) {
  Event event{"/tasks/start", "containerd.events.TaskStart", ""};
  pb::Writer writer(&event.payload);
  writer.String(1, id);
  writer.Varint(2, static_cast<uint64_t>(pid));
  return event;
}

Event TaskExit(absl::string_view id, absl::string_view process_id, int pid, int code,
               absl::Time time) {
  Event event{"/tasks/exit", "containerd.events.TaskExit", ""};
  pb::Writer writer(&event.payload);
  writer.String(1, id);
  writer.String(2, process_id);
  writer.Varint(3, static_cast<uint64_t>(pid));
  writer.Varint(4, static_cast<uint64_t>(code));
  WriteTimestamp(writer, 5, time);
  return event;
}

Event TaskDelete(absl::string_view id, absl::string_view process_id, int pid, int code,
                 absl::Time time) {
  Event event{"/tasks/delete", "containerd.events.TaskDelete", ""};
  pb::Writer writer(&event.payload);
  writer.String(1, id);
  writer.Varint(2, static_cast<uint64_t>(pid));
  writer.Varint(3, static_cast<uint64_t>(code));
  WriteTimestamp(writer, 4, time);
  writer.String(5, process_id);
  return event;
}

Event TaskOom(absl::string_view id) {
  return IdOnly("/tasks/oom", "containerd.events.TaskOOM", id);
}

Event TaskExecAdded(absl::string_view id, absl::string_view exec_id) {
  Event event{"/tasks/exec-added", "containerd.events.TaskExecAdded", ""};
  pb::Writer writer(&event.payload);
  writer.String(1, id);
  writer.String(2, exec_id);
  return event;
}

Event TaskExecStarted(absl::string_view id, absl::string_view exec_id, int pid) {
  Event event{"/tasks/exec-started", "containerd.events.TaskExecStarted", ""};
  pb::Writer writer(&event.payload);
  writer.String(1, id);
  writer.String(2, exec_id);
  writer.Varint(3, static_cast<uint64_t>(pid));
  return event;
}

Event TaskPaused(absl::string_view id) {
  return IdOnly("/tasks/paused", "containerd.events.TaskPaused", id);
}

Event TaskResumed(absl::string_view id) {
  return IdOnly("/tasks/resumed", "containerd.events.TaskResumed", id);
}

}  // namespace gantry::shim

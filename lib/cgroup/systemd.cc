#include "lib/cgroup/systemd.h"

#include <stdlib.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/base/failpoint.h"
#include "lib/base/status.h"
#include "lib/base/text.h"

namespace gantry::cgroup {
namespace {

using dbus::Value;

constexpr char kService[] = "org.freedesktop.systemd1";
constexpr char kManagerPath[] = "/org/freedesktop/systemd1";
constexpr char kManager[] = "org.freedesktop.systemd1.Manager";

// "%2d" and the like in an address.
std::string Unescape(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escaped = text[i] == '%' && i + 2 < text.size() &&
                         absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 1])) &&
                         absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 2]));
    if (escaped) {
      out += absl::HexStringToBytes(text.substr(i + 1, 2));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// "unix:path=/run/user/1000/bus,guid=…;unix:abstract=…"
void AddAddresses(const char* addresses, std::vector<Endpoint>& endpoints) {
  if (addresses == nullptr) return;
  for (absl::string_view address : absl::StrSplit(addresses, ';', absl::SkipEmpty())) {
    if (!absl::ConsumePrefix(&address, "unix:")) continue;
    for (absl::string_view pair : absl::StrSplit(address, ',')) {
      if (absl::ConsumePrefix(&pair, "path=")) endpoints.push_back({Unescape(pair)});
    }
  }
}

// The path of a unit's object: what is neither letter nor digit, nor a digit in front, is "_xx".
std::string UnitPath(absl::string_view unit) {
  std::string path = absl::StrCat(kManagerPath, "/unit/");
  for (size_t i = 0; i < unit.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(unit[i]);
    if (absl::ascii_isalpha(c) || (i > 0 && absl::ascii_isdigit(c))) {
      path.push_back(static_cast<char>(c));
    } else {
      absl::StrAppendFormat(&path, "_%02x", c);
    }
  }
  return path;
}

Value PropertyList(std::vector<UnitProperty> properties) {
  std::vector<Value> list;
  for (UnitProperty& property : properties) {
    list.push_back(
        Value::Struct({Value::String(property.name), Value::Variant(std::move(property.value))}));
  }
  return Value::Array("(sv)", std::move(list));
}

// What makes a unit a container's, whatever its limits.
void AddOwnProperties(const UnitName& name, pid_t pid, std::vector<UnitProperty>& properties) {
  const auto first = [&](const char* property, Value value) {
    properties.insert(properties.begin(), {property, std::move(value)});
  };
  first("DefaultDependencies", Value::Bool(false));
  for (const char* accounting :
       {"MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"}) {
    first(accounting, Value::Bool(true));
  }
  if (name.is_slice()) {
    first("Wants", Value::Array("s", {Value::String(name.slice.empty() ? "-.slice" : name.slice)}));
  } else {
    first("Slice", Value::String(name.slice.empty() ? "-.slice" : name.slice));
    first("Delegate", Value::Bool(true));
    first("PIDs", Value::Array("u", {Value::Uint32(static_cast<uint32_t>(pid))}));
  }
  first("Description", Value::String(absl::StrCat("gantry container ", name.unit)));
}

}  // namespace

std::vector<Endpoint> SystemdEndpoints(bool user) {
  std::vector<Endpoint> endpoints;
  if (!user) {
    AddAddresses(::getenv("DBUS_SYSTEM_BUS_ADDRESS"), endpoints);
    if (endpoints.empty()) {
      endpoints.push_back({"/run/systemd/private", dbus::Peer::kDirect});
      endpoints.push_back({"/run/dbus/system_bus_socket"});
    }
    return endpoints;
  }
  AddAddresses(::getenv("DBUS_SESSION_BUS_ADDRESS"), endpoints);
  const char* runtime = ::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && runtime[0] == '/') {
    endpoints.push_back({absl::StrCat(runtime, "/systemd/private"), dbus::Peer::kDirect});
    endpoints.push_back({absl::StrCat(runtime, "/bus")});
  }
  return endpoints;
}

absl::StatusOr<Systemd> Systemd::Connect(const std::vector<Endpoint>& endpoints,
                                         absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::Status first;
  for (const Endpoint& endpoint : endpoints) {
    absl::StatusOr<dbus::Connection> connection =
        dbus::Connection::Open(endpoint.path, endpoint.peer, deadline);
    if (!connection.ok()) {
      first = FirstError(first, connection.status());
      continue;
    }
    Systemd systemd(*std::move(connection));
    if (endpoint.peer == dbus::Peer::kDirect) return systemd;
    // A bus tells a client only about what it has asked for.
    absl::StatusOr<dbus::Message> match = systemd.connection_.Call(
        {"org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch"},
        {Value::String("type='signal',sender='org.freedesktop.systemd1',"
                       "interface='org.freedesktop.systemd1.Manager',member='JobRemoved'")});
    if (match.ok()) return systemd;
    first = FirstError(first, match.status());
  }
  return absl::UnavailableError(absl::StrCat(
      "the systemd cgroup driver cannot reach systemd: ",
      first.ok() ? "XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS are not set" : first.message(),
      "; where systemd is not the init, use --cgroup-manager cgroupfs; a user needs a login "
      "session "
      "or `loginctl enable-linger`"));
}

absl::StatusOr<std::vector<Value>> Systemd::Call(const char* member,
                                                 const std::vector<Value>& arguments) {
  ASSIGN_OR_RETURN(dbus::Message reply,
                   connection_.Call({kService, kManagerPath, kManager, member}, arguments));
  return reply.Body();
}

absl::StatusOr<Value> Systemd::GetProperty(const std::string& path, const char* interface,
                                           const char* name) {
  ASSIGN_OR_RETURN(dbus::Message reply,
                   connection_.Call({kService, path, "org.freedesktop.DBus.Properties", "Get"},
                                    {Value::String(interface), Value::String(name)}));
  ASSIGN_OR_RETURN(std::vector<Value> body, reply.Body());
  if (body.size() != 1 || body[0].signature != "v") {
    return absl::InternalError(absl::StrCat("systemd's answer to '", name, "' is no property"));
  }
  return std::move(body[0].members[0]);
}

absl::StatusOr<int> Systemd::Version() {
  if (version_ != 0) return version_;
  absl::StatusOr<Value> property = GetProperty(kManagerPath, kManager, "Version");
  if (!property.ok()) return Annotate(property.status(), "ask systemd for its version");
  const Value& value = *property;
  // "252.38-1~deb12u1", "v249", "systemd 219".
  const size_t digit = value.text.find_first_of("0123456789");
  absl::string_view text = value.text;
  text.remove_prefix(std::min(digit, text.size()));
  text = text.substr(0, text.find_first_not_of("0123456789"));
  if (!absl::SimpleAtoi(text, &version_) || version_ <= 0) {
    return absl::InternalError(absl::StrCat(
        "systemd gives its version as '", EscapeForTerminal(value.text), "', which has no number"));
  }
  return version_;
}

// Methods that queue a job answer with its path; its end is a signal.
absl::Status Systemd::AwaitJob(const std::vector<Value>& reply, const std::string& unit) {
  if (reply.size() != 1 || reply[0].signature != "o") {
    return absl::InternalError("systemd answered without a job");
  }
  std::string result;
  const auto is_ours = [&](const dbus::Message& signal) {
    if (signal.interface != kManager || signal.member != "JobRemoved") return false;
    absl::StatusOr<std::vector<Value>> body = signal.Body();
    if (!body.ok() || signal.signature != "uoss" || (*body)[1].text != reply[0].text) return false;
    result = (*body)[3].text;
    return true;
  };
  absl::Status waited = connection_.WaitForSignal(is_ours).status();
  RETURN_IF_ERROR(Annotate(waited, "wait for the job"));
  if (result == "done" || result == "skipped") return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the job's result is '", EscapeForTerminal(result), "'; see: journalctl -u ", unit));
}

absl::Status Systemd::StartUnit(const UnitName& name, pid_t pid,
                                std::vector<UnitProperty> properties) {
  RETURN_IF_ERROR(FAILPOINT("cgroup.systemd.before_start"));
  AddOwnProperties(name, pid, properties);
  const std::string what = absl::StrCat("start the systemd unit '", name.unit, "'");
  const std::vector<Value> arguments = {Value::String(name.unit), Value::String("replace"),
                                        PropertyList(std::move(properties)),
                                        Value::Array("(sa(sv))", {})};
  absl::StatusOr<std::vector<Value>> reply = Call("StartTransientUnit", arguments);
  if (absl::IsAlreadyExists(reply.status())) {
    // One that failed, of an earlier container of this name, may be in the way.
    (void)Call("ResetFailedUnit", {Value::String(name.unit)});
    reply = Call("StartTransientUnit", arguments);
  }
  if (!reply.ok()) return Annotate(reply.status(), what);
  return Annotate(AwaitJob(*reply, name.unit), what);
}

absl::StatusOr<std::string> Systemd::ControlGroup(const UnitName& name) {
  const char* interface =
      name.is_slice() ? "org.freedesktop.systemd1.Slice" : "org.freedesktop.systemd1.Scope";
  absl::StatusOr<Value> value = GetProperty(UnitPath(name.unit), interface, "ControlGroup");
  if (!value.ok()) {
    return Annotate(value.status(),
                    absl::StrCat("ask systemd for the cgroup of '", name.unit, "'"));
  }
  if (!absl::StartsWith(value->text, "/") || value->text == "/") {
    return absl::InternalError(absl::StrCat("systemd gives the cgroup of '", name.unit, "' as '",
                                            EscapeForTerminal(value->text), "'"));
  }
  return std::move(value->text);
}

absl::Status Systemd::SetProperties(const std::string& unit, std::vector<UnitProperty> properties) {
  if (properties.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FAILPOINT("cgroup.systemd.before_set_properties"));
  return Annotate(Call("SetUnitProperties", {Value::String(unit), Value::Bool(true),
                                             PropertyList(std::move(properties))})
                      .status(),
                  absl::StrCat("set properties of the systemd unit '", unit, "'"));
}

absl::Status Systemd::AttachProcess(const std::string& unit, pid_t pid) {
  RETURN_IF_ERROR(FAILPOINT("cgroup.systemd.before_attach"));
  const Value pids = Value::Array("u", {Value::Uint32(static_cast<uint32_t>(pid))});
  return Annotate(
      Call("AttachProcessesToUnit", {Value::String(unit), Value::String(""), pids}).status(),
      absl::StrCat("move a process into the systemd unit '", unit, "'"));
}

absl::Status Systemd::StopUnit(const std::string& unit) {
  RETURN_IF_ERROR(FAILPOINT("cgroup.systemd.before_stop"));
  absl::StatusOr<std::vector<Value>> reply =
      Call("StopUnit", {Value::String(unit), Value::String("replace")});
  absl::Status status = reply.ok() ? AwaitJob(*reply, unit) : reply.status();
  // A scope goes by itself with its last process, but stays when it failed (killed for memory).
  absl::Status reset = Call("ResetFailedUnit", {Value::String(unit)}).status();
  for (absl::Status* one : {&status, &reset}) {
    if (absl::IsNotFound(*one)) *one = absl::OkStatus();
  }
  return Annotate(FirstError(status, reset), absl::StrCat("stop the systemd unit '", unit, "'"));
}

}  // namespace gantry::cgroup

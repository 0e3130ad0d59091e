// config.json ⇄ Spec, over the descriptions of spec_members.h.
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/oci/spec.h"
#include "lib/oci/spec_members.h"

namespace gantry::oci {
namespace {

template <typename T>
inline constexpr bool kIsPlain = std::is_arithmetic_v<T> || std::is_same_v<T, std::string>;

class ReadMembers {
 public:
  explicit ReadMembers(json::Value object) : object_(object), status_(object.ExpectObject()) {}

  template <typename T>
  void operator()(const char* key, T& member, Presence presence = kOptional, bool = false) {
    if (!status_.ok()) return;
    std::optional<json::Value> value = object_.Find(key);
    if (value) {
      status_ = Read(*value, member);
    } else if (presence == kRequired) {
      status_ = object_.Missing(key);
    }
  }

  absl::Status status() const { return status_; }

  template <typename T>
  static absl::Status Read(const json::Value& value, T& out) {
    if constexpr (kIsPlain<T>) {
      return value.To(&out);
    } else {
      ReadMembers members(value);
      Describe(members, out);
      return members.status();
    }
  }
  template <typename T>
  static absl::Status Read(const json::Value& value, std::optional<T>& out) {
    return Read(value, out.emplace());
  }
  template <typename T>
  static absl::Status Read(const json::Value& value, std::vector<T>& out) {
    RETURN_IF_ERROR(value.ExpectArray());
    out.resize(value.size());
    for (size_t i = 0; i < out.size(); ++i) RETURN_IF_ERROR(Read(value.at(i), out[i]));
    return absl::OkStatus();
  }
  template <typename T>
  static absl::Status Read(const json::Value& value, std::map<std::string, T>& out) {
    RETURN_IF_ERROR(value.ExpectObject());
    for (size_t i = 0; i < value.size(); ++i) {
      auto [key, element] = value.member(i);
      if (!element.is_null()) RETURN_IF_ERROR(Read(element, out[std::string(key)]));
    }
    return absl::OkStatus();
  }

 private:
  json::Value object_;
  absl::Status status_;
};

class WriteMembers {
 public:
  explicit WriteMembers(json::Writer& out) : out_(out) {}

  template <typename T>
  void operator()(const char* key, T& member, Presence presence = kOptional, bool always = false) {
    if (presence == kOptional && !always && IsDefault(member)) return;
    out_.Key(key);
    Write(out_, member);
  }

  template <typename T>
  static void Write(json::Writer& out, T& value) {
    if constexpr (kIsPlain<T>) {
      out.Write(value);
    } else {
      out.BeginObject();
      WriteMembers members(out);
      Describe(members, value);
      out.EndObject();
    }
  }
  template <typename T>
  static void Write(json::Writer& out, std::optional<T>& value) {
    Write(out, *value);
  }
  template <typename T>
  static void Write(json::Writer& out, std::vector<T>& values) {
    out.BeginArray();
    for (T& value : values) Write(out, value);
    out.EndArray();
  }
  template <typename T>
  static void Write(json::Writer& out, std::map<std::string, T>& values) {
    out.BeginObject();
    for (auto& [key, value] : values) {
      out.Key(key);
      Write(out, value);
    }
    out.EndObject();
  }

 private:
  template <typename T>
  static bool IsDefault(const T& value) {
    if constexpr (std::is_arithmetic_v<T>) {
      return value == T{};
    } else {
      return false;  // An object that is a member, not an option, is written.
    }
  }
  static bool IsDefault(const std::string& value) { return value.empty(); }
  static bool IsDefault(const Hooks& x) {
    return x.prestart.empty() && x.create_runtime.empty() && x.create_container.empty() &&
           x.start_container.empty() && x.poststart.empty() && x.poststop.empty();
  }
  template <typename T>
  static bool IsDefault(const std::optional<T>& value) {
    return !value.has_value();
  }
  template <typename T>
  static bool IsDefault(const std::vector<T>& values) {
    return values.empty();
  }
  template <typename T>
  static bool IsDefault(const std::map<std::string, T>& values) {
    return values.empty();
  }

  json::Writer& out_;
};

template <typename T>
absl::StatusOr<T> ParseObject(absl::string_view bytes) {
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(bytes));
  T object;
  RETURN_IF_ERROR(ReadMembers::Read(document.root(), object));
  return object;
}

template <typename T>
std::string WriteObject(const T& object) {
  json::Writer writer;
  T copy = object;  // Describe is written for readers too, so it wants something it may change.
  WriteMembers::Write(writer, copy);
  return writer.Take();
}

}  // namespace

absl::StatusOr<Spec> ParseSpec(absl::string_view json) {
  ASSIGN_OR_RETURN(Spec spec, ParseObject<Spec>(json));
  RETURN_IF_ERROR(CheckSpec(spec));
  return spec;
}

absl::StatusOr<Process> ParseProcess(absl::string_view json) {
  ASSIGN_OR_RETURN(Process process, ParseObject<Process>(json));
  RETURN_IF_ERROR(CheckProcess(process, ""));
  return process;
}

absl::StatusOr<Resources> ParseResources(absl::string_view json) {
  ASSIGN_OR_RETURN(Resources resources, ParseObject<Resources>(json));
  RETURN_IF_ERROR(CheckResources(resources, ""));
  return resources;
}

absl::StatusOr<std::vector<Mount>> ParseMounts(absl::string_view json) {
  ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(json));
  std::vector<Mount> mounts;
  RETURN_IF_ERROR(ReadMembers::Read(document.root(), mounts));
  RETURN_IF_ERROR(CheckMounts(mounts));
  return mounts;
}

std::string WriteSpec(const Spec& spec) { return WriteObject(spec); }
std::string WriteProcess(const Process& process) { return WriteObject(process); }
std::string WriteResources(const Resources& resources) { return WriteObject(resources); }

}  // namespace gantry::oci

// Strict JSON (SECURITY-RULES 37): reading with the path of whatever is wrong, and writing.
//
//   ASSIGN_OR_RETURN(json::Document document, json::Document::Parse(bytes));
//   json::Value root = document.root();
//   RETURN_IF_ERROR(root.Required("ociVersion", &version));
//   RETURN_IF_ERROR(root.Optional("hostname", &hostname));   // absent or null: left as it is
//
// Refused on reading: duplicate keys in an object, more than 64 levels, bytes after the document,
// invalid UTF-8, and more than the limit of bytes. A `null` member counts as absent, as Go's
// decoders, which write most of what we read, treat it. Errors are InvalidArgument and begin with
// the path: "process.user.uid: expected an integer from 0 to 4294967295, found the string 'root'".
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/base/status.h"

namespace gantry::json {

inline constexpr size_t kDefaultLimitBytes = 16 << 20;
inline constexpr size_t kMaxDepth = 64;

namespace internal {
class Tree;
}

// One value of a Document: a borrowed view, cheap to copy, valid while the Document lives (moves of
// the Document included). Thread-compatible.
class Value {
 public:
  bool is_null() const;
  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_bool() const;
  bool is_number() const;

  // Elements of an array or members of an object; 0 for everything else.
  size_t size() const;

  // The member, unless it is absent or null. On anything but an object: nothing.
  std::optional<Value> Find(absl::string_view key) const;

  // The element; `index` must be below size() of an array.
  Value at(size_t index) const;

  // The member's name and value in the order of the document; `index` below size() of an object.
  std::pair<absl::string_view, Value> member(size_t index) const;

  // The value as T. Errors: InvalidArgument — another type, or out of T's range.
  absl::Status To(std::string* out) const;
  absl::Status To(bool* out) const;
  absl::Status To(int64_t* out) const;
  absl::Status To(uint64_t* out) const;
  absl::Status To(int32_t* out) const;
  absl::Status To(uint32_t* out) const;
  absl::Status To(uint16_t* out) const;
  absl::Status To(double* out) const;
  absl::Status To(Value* out) const {
    *out = *this;
    return absl::OkStatus();
  }
  template <typename T>
  absl::Status To(std::optional<T>* out) const {
    return To(&out->emplace());
  }
  template <typename T>
  absl::Status To(std::vector<T>* out) const {
    RETURN_IF_ERROR(ExpectArray());
    out->clear();
    out->reserve(size());
    for (size_t i = 0; i < size(); ++i) {
      T element{};
      RETURN_IF_ERROR(at(i).To(&element));
      out->push_back(std::move(element));
    }
    return absl::OkStatus();
  }
  template <typename T>
  absl::Status To(std::map<std::string, T>* out) const {
    RETURN_IF_ERROR(ExpectObject());
    out->clear();
    for (size_t i = 0; i < size(); ++i) {
      auto [key, value] = member(i);
      if (value.is_null()) continue;
      RETURN_IF_ERROR(value.To(&(*out)[std::string(key)]));
    }
    return absl::OkStatus();
  }

  // Member `key` into `*out`. Optional leaves `*out` alone when the member is absent or null;
  // Required makes that an error.
  template <typename T>
  absl::Status Optional(absl::string_view key, T* out) const {
    RETURN_IF_ERROR(ExpectObject());
    std::optional<Value> found = Find(key);
    return found ? found->To(out) : absl::OkStatus();
  }
  template <typename T>
  absl::Status Required(absl::string_view key, T* out) const {
    RETURN_IF_ERROR(ExpectObject());
    std::optional<Value> found = Find(key);
    return found ? found->To(out) : Missing(key);
  }

  absl::Status ExpectObject() const;
  absl::Status ExpectArray() const;

  // Where this value stands: "linux.namespaces[2].type"; "" for the root. Found by search, since
  // only errors need it.
  std::string Path() const;

  // InvalidArgument "<path>: <reason>", for rules that the types above do not know.
  absl::Status Error(absl::string_view reason) const;
  absl::Status Missing(absl::string_view key) const;

  // What the value is, for messages: "the string 'x'", "an object".
  std::string Describe() const;

  // This value as compact JSON.
  std::string Dump() const;

  Value() = default;  // A null that belongs to no document.

 private:
  friend class Document;
  Value(const internal::Tree* tree, const void* node) : tree_(tree), node_(node) {}
  const internal::Tree* tree_ = nullptr;
  const void* node_ = nullptr;
};

// Owns a parsed document. Move-only. Thread-compatible.
class Document {
 public:
  // Errors: InvalidArgument — not JSON (with line and column), or a rule above is broken;
  // ResourceExhausted — more than `limit` bytes.
  static absl::StatusOr<Document> Parse(absl::string_view bytes, size_t limit = kDefaultLimitBytes);

  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;
  ~Document();

  Value root() const;

 private:
  explicit Document(std::unique_ptr<internal::Tree> tree);
  std::unique_ptr<internal::Tree> tree_;
};

// Writes one document, compact. Calls must nest properly: that is a bug of the caller otherwise.
// Strings that are not UTF-8 are mended with U+FFFD. Thread-compatible.
//
//   json::Writer writer;
//   writer.BeginObject();
//   writer.Member("id", id);
//   writer.Key("mounts"); writer.BeginArray(); … writer.EndArray();
//   writer.EndObject();
//   return writer.Take();
class Writer {
 public:
  void BeginObject();
  void EndObject();
  void BeginArray();
  void EndArray();
  void Key(absl::string_view name);

  void Write(absl::string_view text);
  void Write(const char* text) { Write(absl::string_view(text)); }
  void Write(const std::string& text) { Write(absl::string_view(text)); }
  void Write(bool truth);
  void Write(int64_t number);
  void Write(uint64_t number);
  void Write(int32_t number) { Write(static_cast<int64_t>(number)); }
  void Write(uint32_t number) { Write(static_cast<uint64_t>(number)); }
  void Write(double number);
  void WriteNull();
  void Write(const Value& value) { WriteRaw(value.Dump()); }
  template <typename T>
  void Write(const std::vector<T>& values) {
    BeginArray();
    for (const T& value : values) Write(value);
    EndArray();
  }
  template <typename T>
  void Write(const std::map<std::string, T>& members) {
    BeginObject();
    for (const auto& [name, value] : members) Member(name, value);
    EndObject();
  }

  // `json` must be one complete document already.
  void WriteRaw(absl::string_view json);

  template <typename T>
  void Member(absl::string_view name, const T& value) {
    Key(name);
    Write(value);
  }

  // The document; the writer is empty afterwards.
  std::string Take();

 private:
  void Separate();

  std::string out_;
  bool first_ = true;       // No comma before the next value: first of its container.
  bool after_key_ = false;  // A key and its colon were written last.
};

// `text` with JSON's escapes, without the quotes around it.
std::string Escape(absl::string_view text);

// The same document with two spaces of indentation, for people. `json` must be valid.
std::string Indent(absl::string_view json);

}  // namespace gantry::json

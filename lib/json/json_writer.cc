#include <cmath>

#define RAPIDJSON_ASSERT(condition) ((condition) ? (void)0 : __builtin_trap())
#include "absl/strings/str_cat.h"
#include "lib/json/json.h"
#include "rapidjson/document.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace gantry::json {

void Writer::Separate() {
  if (!first_ && !after_key_) out_.push_back(',');
  first_ = false;
  after_key_ = false;
}

void Writer::BeginObject() {
  Separate();
  out_.push_back('{');
  first_ = true;
}

void Writer::EndObject() {
  out_.push_back('}');
  first_ = false;
}

void Writer::BeginArray() {
  Separate();
  out_.push_back('[');
  first_ = true;
}

void Writer::EndArray() {
  out_.push_back(']');
  first_ = false;
}

void Writer::Key(absl::string_view name) {
  Separate();
  absl::StrAppend(&out_, "\"", Escape(name), "\":");
  after_key_ = true;
}

void Writer::Write(absl::string_view text) {
  Separate();
  absl::StrAppend(&out_, "\"", Escape(text), "\"");
}

void Writer::Write(bool truth) {
  Separate();
  out_.append(truth ? "true" : "false");
}

void Writer::Write(int64_t number) {
  Separate();
  absl::StrAppend(&out_, number);
}

void Writer::Write(uint64_t number) {
  Separate();
  absl::StrAppend(&out_, number);
}

void Writer::Write(double number) {
  Separate();
  // JSON knows no infinities; what cannot be said is null.
  if (!std::isfinite(number)) {
    out_.append("null");
    return;
  }
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  writer.Double(number);
  out_.append(buffer.GetString(), buffer.GetSize());
}

void Writer::WriteNull() {
  Separate();
  out_.append("null");
}

void Writer::WriteRaw(absl::string_view json) {
  Separate();
  out_.append(json.data(), json.size());
}

std::string Writer::Take() {
  std::string taken = std::move(out_);
  *this = Writer();
  return taken;
}

namespace {

// Length of the UTF-8 sequence at the front of `text`, 0 when it is not one.
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  size_t length = lead < 0x80                   ? 1
                  : lead >= 0xC2 && lead < 0xE0 ? 2
                  : (lead & 0xF0) == 0xE0       ? 3
                  : lead >= 0xF0 && lead < 0xF5 ? 4
                                                : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  if (length == 3 && ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) >= 0xA0)))
    return 0;
  if (length == 4 && ((lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) >= 0x90)))
    return 0;
  return length;
}

}  // namespace

std::string Escape(absl::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out.append("\\n");
    } else if (c == '\r') {
      out.append("\\r");
    } else if (c == '\t') {
      out.append("\\t");
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out.append("\\u00");
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
    } else {
      const size_t length = Utf8Length(text.substr(i));
      if (length == 0) {
        out.append("\xEF\xBF\xBD");
        ++i;
      } else {
        out.append(text.data() + i, length);
        i += length;
      }
      continue;
    }
    ++i;
  }
  return out;
}

std::string Indent(absl::string_view json) {
  rapidjson::Document document;
  document.Parse(json.data(), json.size());
  rapidjson::StringBuffer buffer;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> writer(buffer);
  writer.SetIndent(' ', 2);
  document.Accept(writer);
  return std::string(buffer.GetString(), buffer.GetSize());
}

}  // namespace gantry::json

// Any text as a template, over a small tree.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ctl/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const gantry::ctl::Value* const kTree = [] {
    auto* tree = new gantry::ctl::Value(gantry::ctl::Value::Object());
    tree->Set("Name", "web")
        .Set("List", gantry::ctl::Value::ListOf(std::vector<std::string>{"a", "b"}))
        .Set("Map", gantry::ctl::Value::Object().Set("k", 1));
    return tree;
  }();
  const auto parsed =
      gantry::ctl::Template::Parse(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (parsed.ok()) (void)parsed->Execute(*kTree);
  return 0;
}

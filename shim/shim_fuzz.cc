// Everything the shim parses of what others hand to it; the first byte chooses.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "shim/arguments.h"
#include "shim/bootstrap.h"
#include "shim/stdio_uri.h"
#include "shim/wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gantry::shim;
  if (size == 0) return 0;
  const absl::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      (void)ParseCreateTask(bytes);
      break;
    case 1:
      (void)ParseExecProcess(bytes);
      break;
    case 2:
      (void)ParseUpdateTask(bytes);
      break;
    case 3:
      (void)ParseProcessRequest(bytes);
      (void)ParseCreateSandbox(bytes);
      break;
    case 4:
      (void)ParseOptions({"containerd.runc.v1.Options", std::string(bytes)});
      break;
    case 5:
      (void)ParseStdioUri(bytes);
      break;
    case 6: {
      Arguments arguments;
      arguments.id = "web";
      arguments.ns = "moby";
      (void)ParseStartInput(bytes, arguments);
      (void)GroupOf(bytes, "web");
      break;
    }
    case 7: {
      const std::vector<std::string> words = absl::StrSplit(bytes, '\0');
      (void)ParseArguments(words);
      break;
    }
  }
  return 0;
}

// `gantryd`: every daemon of the suite in one file. The name it is started by (a link such as
// `gantry-metadata`, or the first argument) selects which one this process is.

#include <cstdio>
#include <cstring>

namespace {

struct Daemon {
  const char* name;
  int (*main)(int argc, char** argv);
};

}  // namespace

#include "daemons.inc"

namespace {

const char* BaseName(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

const Daemon* Find(const char* name) {
  for (const Daemon& daemon : kDaemons) {
    if (daemon.name == nullptr) return nullptr;
    if (std::strcmp(daemon.name, name) == 0) return &daemon;
    if (std::strcmp(daemon.name + std::strlen("gantry-"), name) == 0) return &daemon;
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (const Daemon* daemon = argc > 0 ? Find(BaseName(argv[0])) : nullptr) {
    return daemon->main(argc, argv);
  }
  if (const Daemon* daemon = argc > 1 ? Find(argv[1]) : nullptr) {
    return daemon->main(argc - 1, argv + 1);
  }
  std::fprintf(stderr, "usage: gantryd DAEMON [--config FILE]\ndaemons:");
  for (const Daemon& daemon : kDaemons) {
    if (daemon.name != nullptr) std::fprintf(stderr, " %s", daemon.name);
  }
  std::fprintf(stderr, "\n");
  return 2;
}

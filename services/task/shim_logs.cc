#include "services/task/shim_logs.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <utility>

#include "lib/log/log.h"

namespace gantry::task {
namespace {

constexpr size_t kMaxLineBytes = 16 << 10;

}  // namespace

ShimLogs::~ShimLogs() {
  loop_.Do([this] {
    for (auto& [name, source] : sources_) loop_.loop().Remove(source.watch);
    sources_.clear();
  });
}

void ShimLogs::Add(const std::string& name, sys::UniqueFd fifo) {
  loop_.Do([&] {
    Source& source = sources_[name];
    loop_.loop().Remove(source.watch);
    source = {.fifo = std::move(fifo), .watch = 0, .rest = ""};
    absl::StatusOr<sys::EventLoop::Watch> watch =
        loop_.loop().Add(source.fifo.get(), EPOLLIN, [this, name](uint32_t) { Read(name); });
    if (!watch.ok()) {
      // The fifo stays open all the same, so the shim does not block before it is full.
      log::Warning("log of a shim cannot be read", {{"shim", name}, {"error", watch.status()}});
      return;
    }
    source.watch = *watch;
  });
}

void ShimLogs::Remove(const std::string& name) {
  loop_.Post([this, name] {
    auto found = sources_.find(name);
    if (found == sources_.end()) return;
    loop_.loop().Remove(found->second.watch);
    sources_.erase(found);
  });
}

void ShimLogs::Read(const std::string& name) {
  auto found = sources_.find(name);
  if (found == sources_.end()) return;
  Source& source = found->second;
  char bytes[4096];
  const ssize_t count = ::read(source.fifo.get(), bytes, sizeof bytes);
  if (count <= 0) return;
  source.rest.append(bytes, static_cast<size_t>(count));
  for (;;) {
    size_t end = source.rest.find('\n');
    if (end == std::string::npos && source.rest.size() < kMaxLineBytes) return;
    if (end == std::string::npos) end = source.rest.size();
    log::Info("a shim says", {{"shim", name}, {"line", source.rest.substr(0, end)}});
    source.rest.erase(0, end + 1);
  }
}

}  // namespace gantry::task

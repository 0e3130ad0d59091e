// A suite that gantryctl can be run against without root, kernel or images: the engine, image,
// metadata and debug services on sockets in a directory, and shims that play programs.
//
// Programs are the first word of a container's command: `echo A…` and `err A…` print to a stream,
// `exit N` ends, `cat` copies its input, `size` prints the window at every change, `hang` waits for
// a signal and ends with 128 + n, `vanish` closes the connection without a word, `flood N` prints N
// bytes. Anything else: no such executable.
#pragma once

#include <grpcpp/server.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gantry/engine/v1/engine.pb.h"
#include "lib/sys/temp_dir.h"
#include "lib/sys/unique_fd.h"

namespace gantry::testing {

struct FakeState;

// Thread-safe.
class FakeSuite {
 public:
  static absl::StatusOr<std::unique_ptr<FakeSuite>> Start();
  ~FakeSuite();

  const std::string& directory() const { return directory_.path(); }
  // For GANTRY_HOST.
  std::string host() const { return "unix://" + directory() + "/gantry.sock"; }

  // Stops the process' server: its socket stays and nobody listens.
  void StopProcess(const std::string& process);

  // What Create was asked last.
  engine::v1::CreateContainerRequest last_create() const;
  // Signals that Kill delivered, in order.
  std::vector<std::string> signals() const;
  // Bytes that PutArchive and Import received last, and PutArchive's target.
  std::string received() const;
  std::string received_path() const;
  // Windows that a process was told, "COLUMNSxROWS".
  std::vector<std::string> windows() const;
  // Adds a finding to the audit of `process`.
  void AddFinding(const std::string& process, const std::string& object);
  // References that Pull fetched.
  std::vector<std::string> pulled() const;

 private:
  explicit FakeSuite(sys::TempDir directory) : directory_(std::move(directory)) {}

  sys::TempDir directory_;
  std::shared_ptr<FakeState> state_;  // Shared with the threads of shims.
  std::vector<std::shared_ptr<void>> services_;
  std::map<std::string, std::unique_ptr<grpc::Server>> servers_;
  std::thread shim_;
  sys::UniqueFd stop_;
};

}  // namespace gantry::testing

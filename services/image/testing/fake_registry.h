// A registry for tests: HTTP/1.1 on a free port of 127.0.0.1, images in memory, and faults on
// demand.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "lib/archive/testing/tar_builder.h"
#include "lib/oci/image_manifest.h"

namespace gantry::image {

struct FakeRequest {
  std::string method;
  std::string path;                            // With query.
  std::map<std::string, std::string> headers;  // Lower case.
  std::string body;
};

struct FakeAnswer {
  int status = 200;
  std::vector<std::string> headers;
  std::string body;
  // Send only so many bytes of the body, then close: a truncated connection. -1: all.
  long cut_after = -1;
  bool reset = false;  // Close with RST, at once or after the cut.
  bool stall = false;  // Say nothing more after the cut, until the client hangs up.
};

// Paths of PEM files; empty: no TLS.
struct FakeTls {
  std::string certificate;
  std::string key;
  std::string client_authority;  // Clients must show a certificate signed by it.
};

// Thread-safe.
class FakeRegistry {
 public:
  explicit FakeRegistry(const FakeTls& tls = {});
  ~FakeRegistry();

  std::string host() const;  // "127.0.0.1:PORT"

  // Asked before the registry's own answer; false: answer as usual.
  void Intercept(std::function<bool(const FakeRequest&, FakeAnswer*)> interceptor);

  // Adds content by digest; answers the digest.
  std::string AddBlob(const std::string& bytes);
  // Adds a manifest or index under `repository`:`tag`; answers the digest.
  std::string AddManifest(const std::string& repository, const std::string& tag,
                          const std::string& bytes, const std::string& media_type);

  struct LayerSpec {
    std::string tar;
    archive::Compression compression = archive::Compression::kGzip;
  };
  // An image with these layers; answers the manifest's digest.
  std::string AddImage(const std::string& repository, const std::string& tag,
                       const std::vector<LayerSpec>& layers, const std::string& config = "{}");

  std::vector<FakeRequest> requests();
  size_t CountRequests(const std::string& part_of_path);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::image

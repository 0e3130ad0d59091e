// What `pull` shows (E.8): on a terminal one line a layer, redrawn in place; elsewhere one line for
// every change of state.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ctl/console.h"
#include "gantry/image/v1/image.pb.h"

namespace gantry::ctl {

// Thread-compatible.
class PullRenderer {
 public:
  // Draws on `output`; in place when `in_place` (a terminal) with `columns` of width.
  PullRenderer(Output& output, bool in_place, uint16_t columns)
      : output_(output), in_place_(in_place), columns_(columns) {}

  void Update(const image::v1::PullProgress& progress);

  // The three lines at the end: digest, status, full name.
  static std::string Summary(const image::v1::PullDone& done);

 private:
  struct Layer {
    image::v1::LayerProgress progress;
    std::string drawn;  // The line on the terminal.
  };

  std::string Line(const Layer& layer) const;
  void Draw(size_t index);

  Output& output_;
  bool in_place_;
  uint16_t columns_;
  std::vector<Layer> layers_;
  std::map<std::string, size_t> index_of_;  // By digest.
};

// "[=====>    ]", `width` characters between the brackets.
std::string ProgressBar(uint64_t done, uint64_t total, size_t width);

// The twelve digits people know a digest or id by.
std::string ShortDigest(absl::string_view digest);

}  // namespace gantry::ctl

#include "ctl/progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ctl/names.h"
#include "lib/base/text.h"

namespace gantry::ctl {
namespace {

using image::v1::LayerProgress;

// Docker's width, and what must stay of a narrow terminal beside "id: Downloading " and the sizes.
constexpr size_t kBarWidth = 50;
constexpr size_t kBesideBar = 48;

const char* StateText(LayerProgress::State state) {
  switch (state) {
    case LayerProgress::WAITING:
      return "Waiting";
    case LayerProgress::DOWNLOADING:
      return "Downloading";
    case LayerProgress::VERIFYING:
      return "Verifying";
    case LayerProgress::DOWNLOADED:
      return "Download complete";
    case LayerProgress::EXTRACTING:
      return "Extracting";
    case LayerProgress::COMPLETE:
      return "Pull complete";
    case LayerProgress::EXISTS:
      return "Already exists";
    default:
      return "Pulling fs layer";
  }
}

bool HasBar(LayerProgress::State state) {
  return state == LayerProgress::DOWNLOADING || state == LayerProgress::EXTRACTING;
}

}  // namespace

std::string ShortDigest(absl::string_view digest) {
  absl::ConsumePrefix(&digest, "sha256:");
  return std::string(digest.substr(0, 12));
}

std::string ProgressBar(uint64_t done, uint64_t total, size_t width) {
  if (width == 0) return "[]";
  const double share =
      total > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 0.0;
  const size_t filled = static_cast<size_t>(share * static_cast<double>(width));
  if (filled >= width) return absl::StrCat("[", std::string(width, '='), "]");
  return absl::StrCat("[", std::string(filled, '='), ">", std::string(width - filled - 1, ' '),
                      "]");
}

std::string PullRenderer::Line(const Layer& layer) const {
  const LayerProgress& progress = layer.progress;
  std::string line = absl::StrCat(EscapeForTerminal(ShortDigest(progress.digest())), ": ",
                                  StateText(progress.state()));
  if (!in_place_ || !HasBar(progress.state())) return line;
  const size_t width =
      columns_ > kBesideBar ? std::min<size_t>(columns_ - kBesideBar, kBarWidth) : 0;
  absl::StrAppend(&line, " ");
  if (width >= 10) {
    absl::StrAppend(&line, ProgressBar(progress.done_bytes(), progress.total_bytes(), width), " ");
  }
  absl::StrAppend(&line, DecimalSize(progress.done_bytes()));
  if (progress.total_bytes() > 0) absl::StrAppend(&line, "/", DecimalSize(progress.total_bytes()));
  return line;
}

void PullRenderer::Draw(size_t index) {
  Layer& layer = layers_[index];
  std::string line = Line(layer);
  if (line == layer.drawn) return;
  layer.drawn = std::move(line);
  if (!in_place_) {
    output_.Write(absl::StrCat(layer.drawn, "\n"));
    return;
  }
  // The cursor rests below the last layer: up to this one, clear it, write, and down again.
  const size_t up = layers_.size() - index;
  output_.Write(absl::StrCat("\x1b[", up, "A\r\x1b[2K", layer.drawn, "\r\x1b[", up, "B"));
}

void PullRenderer::Update(const image::v1::PullProgress& progress) {
  if (!progress.status().empty()) {
    // A status line after layers would break the arithmetic of the cursor; there is none in
    // practice.
    if (layers_.empty() || !in_place_) {
      output_.Write(absl::StrCat(EscapeForTerminal(progress.status()), "\n"));
    }
  }
  for (const LayerProgress& update : progress.layers()) {
    auto [it, fresh] = index_of_.emplace(update.digest(), layers_.size());
    if (fresh) {
      layers_.emplace_back();
      if (in_place_) output_.Write("\n");
    }
    Layer& layer = layers_[it->second];
    // Without a terminal only a new state is news.
    const bool news = fresh || in_place_ || layer.progress.state() != update.state();
    layer.progress = update;
    if (news) Draw(it->second);
  }
  output_.Flush();
}

std::string PullRenderer::Summary(const image::v1::PullDone& done) {
  return absl::StrCat(
      "Digest: ", EscapeForTerminal(done.digest()),
      "\nStatus: ", done.up_to_date() ? "Image is up to date for " : "Downloaded newer image for ",
      EscapeForTerminal(FamiliarName(done.name())), "\n", EscapeForTerminal(done.name()), "\n");
}

}  // namespace gantry::ctl

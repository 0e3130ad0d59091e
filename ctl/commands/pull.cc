#include "ctl/commands/pull.h"

#include <optional>
#include <utility>

#include "ctl/progress.h"
#include "ctl/terminal.h"
#include "lib/base/status.h"

namespace gantry::ctl {

absl::Status PullImage(Context& context, const PullOptions& options, Output& output,
                       std::string* name) {
  image::v1::PullRequest request;
  request.set_reference(options.reference);
  request.set_platform(options.platform);
  ASSIGN_OR_RETURN(Stream stream,
                   context.suite().Open("image", "/gantry.image.v1.Images/Pull", &request));
  const std::optional<WindowSize> window = GetWindowSize(output.fd());
  PullRenderer renderer(output, output.IsTerminal() && window.has_value(),
                        window ? window->columns : 0);
  image::v1::PullProgress progress;
  while (true) {
    progress.Clear();
    ASSIGN_OR_RETURN(bool more, stream.call->Read(&progress));
    if (!more) return absl::OkStatus();
    if (!options.quiet) renderer.Update(progress);
    if (!progress.has_done()) continue;
    if (name != nullptr) *name = progress.done().name();
    if (!options.quiet) output.Write(PullRenderer::Summary(progress.done()));
  }
}

}  // namespace gantry::ctl

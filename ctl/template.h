// The part of Go's text/template that people write after --format:
//
//   {{.ID}}  {{.State.Running}}  {{json .}}  {{index .Labels "a"}}  {{.Label "a"}}
//   {{if eq .State "running"}}…{{else if …}}…{{else}}…{{end}}   {{with .Health}}…{{end}}
//   {{range .Mounts}}…{{else}}…{{end}}   {{range $key, $value := .Ports}}…{{end}}
//   {{$x := .Name}}{{$x}}   {{.Name | upper | printf "%q"}}   {{(index .Mounts 0).Source}}
//   {{- trimmed -}}   {{/* comment */}}   {{break}} {{continue}}
//
// Functions: and or not eq ne lt le gt ge len index slice print println printf json join split
// lower upper title pad truncate.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ctl/value.h"

namespace gantry::ctl {

namespace internal {
struct Node;
}

// A parsed template. Move-only. Thread-compatible.
class Template {
 public:
  // Errors: InvalidArgument — not a template; the message says where.
  static absl::StatusOr<Template> Parse(absl::string_view text);

  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // The text for `data`. Errors: InvalidArgument — a field that is not there (names in lower case
  // are keys of maps and print "<no value>", as in Go), a function with wrong arguments;
  // ResourceExhausted — more than 64 MiB of output.
  absl::StatusOr<std::string> Execute(const Value& data) const;

 private:
  explicit Template(std::unique_ptr<internal::Node> root);
  std::unique_ptr<internal::Node> root_;
};

}  // namespace gantry::ctl

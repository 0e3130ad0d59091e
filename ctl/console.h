// Where a command prints: data to stdout, everything else to stderr (E.9).
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace gantry::ctl {

// A buffered descriptor, or a string for tests. Ends the program silently with 141 when the reader
// of a pipe has gone, as `gantryctl logs C | head` should. Thread-compatible.
class Output {
 public:
  explicit Output(int fd) : fd_(fd) {}
  // Collects into text().
  Output() = default;
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() { Flush(); }

  void Write(absl::string_view text);
  void Flush();

  int fd() const { return fd_; }
  bool IsTerminal() const;
  const std::string& text() const { return buffer_; }

 private:
  int fd_ = -1;
  std::string buffer_;
};

}  // namespace gantry::ctl

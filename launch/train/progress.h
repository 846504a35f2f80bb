// Progress: how far a long job is, on standard error. A terminal shows one line that moves, with a bar and the time
// left; anywhere else a plain line appears at every tenth of the way.
#pragma once

#include <cstdint>
#include <string>

namespace longspan {

class Progress {
 public:
  Progress(std::string what, int64_t total);
  ~Progress();                                         // clears the moving line
  void Update(int64_t done, const std::string& note);  // `note` stands behind the numbers

 private:
  const std::string what_;
  const int64_t total_;
  const bool terminal_;
  const double start_;
  double shown_ = 0;    // when the line last moved
  int64_t tenths_ = 0;  // of the plain lines
};

std::string FormatSeconds(double seconds);  // rounded up: "1:02:03", "2:03"
std::string FormatBytes(int64_t bytes);     // "1.2 MiB"

}  // namespace longspan

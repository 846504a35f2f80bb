// Progress: how far a long job is. A terminal shows one line that moves, with a bar and the time left; anywhere else,
// and under mpirun or srun, a plain line appears at every tenth of the way, unless the job writes lines of its own.
// LONGSPAN_PROGRESS=bar or plain decides it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace longspan {

class Progress {
 public:
  enum class Plain { kTenths, kNothing };  // where there is no terminal
  Progress(std::string what, int64_t total, std::FILE* out = stderr, Plain plain = Plain::kTenths);
  ~Progress();  // when an error passes, its message begins on a line of its own below the last state
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Update(int64_t done, const std::string& note);  // `note` stands behind the numbers
  void Clear();                                        // the moving line makes room, until the next update

 private:
  const std::string what_;
  const int64_t total_;
  std::FILE* const out_;
  const bool terminal_;
  const Plain plain_;
  int64_t first_done_ = -1;  // at the first update: the time left comes from the speed since
  double first_seconds_ = 0;
  double shown_ = 0;    // when the line last moved; 0 = it is not there
  int64_t tenths_ = 0;  // of the plain lines
};

std::string FormatSeconds(double seconds);  // rounded up: "1:02:03", "2:03"

}  // namespace longspan

// Time and memory of the whole attention operator on CPU, forward and backward, as the sequence doubles.
//
//   attention_scaling [longest = 16384]
//
// "extra" is what the operator needs beyond its inputs, outputs and gradients: the peak of the process's resident
// memory over that before the forward pass. Each length runs in a process of its own. Exits with 1 when extra memory
// more than doubles (by over a tenth and a MiB) from one length to the next: an S x C or S x S matrix would quadruple
// it.
#include <fmt/format.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "runtime/error.h"
#include "runtime/trace.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"
#include "tests/support/nsa_run.h"

namespace longspan::test {
namespace {

struct Row {
  double forward_ms = 0, backward_ms = 0, extra_mib = 0;
};

// The paper's block sizes on a small model's heads, fp32.
NsaCase Case(int64_t tokens) {
  NsaCase c{.tokens = tokens, .heads = 8, .groups = 2, .key_width = 32, .value_width = 32, .rope_theta = 10000};
  Randomize(c, 1);
  return c;
}

// A field of /proc/self/status in MiB.
double StatusMib(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return std::stod(line.substr(field.size())) / 1024;
  }
  return 0;
}

Row Measure(int64_t tokens) {
  // Freed memory goes back to the system at once, so that residence is what is in use.
  mallopt(M_MMAP_THRESHOLD, 1 << 16);
  NsaOperator nsa(CpuMachine(DType::kF32), Case(tokens));
  nsa.StartGradients();
  std::ofstream("/proc/self/clear_refs") << "5";  // starts VmHWM, the peak, anew
  const double before = StatusMib("VmRSS:");
  const double start = WallSeconds();
  nsa.Forward();
  const double middle = WallSeconds();
  nsa.Backward();
  const double end = WallSeconds();
  return {1e3 * (middle - start), 1e3 * (end - middle), StatusMib("VmHWM:") - before};
}

// In a child process, so that nothing of it stays. Throws Error when the child fails.
Row MeasureApart(int64_t tokens) {
  int ends[2];
  LS_CHECK(pipe(ends) == 0, "attention_scaling: no pipe");
  const pid_t child = fork();
  LS_CHECK(child >= 0, "attention_scaling: no child process");
  if (child == 0) {
    const Row row = Measure(tokens);
    _exit(write(ends[1], &row, sizeof row) == sizeof row ? 0 : 1);
  }
  close(ends[1]);
  Row row;
  const bool received = read(ends[0], &row, sizeof row) == sizeof row;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  LS_CHECK(received && status == 0, "attention_scaling: the run at {} tokens failed with status {}", tokens, status);
  return row;
}

std::string Ratio(double now, double before) { return before > 0 ? fmt::format("{:.2f}", now / before) : "-"; }

int Main(int64_t longest) {
  fmt::print("{:>8} {:>12} {:>7} {:>12} {:>7} {:>11} {:>7}\n", "tokens", "forward ms", "ratio", "backward ms", "ratio",
             "extra MiB", "ratio");
  bool linear = true;
  Row last;
  for (int64_t tokens = 2048; tokens <= longest; tokens *= 2) {
    const Row row = MeasureApart(tokens);
    fmt::print("{:>8} {:>12.1f} {:>7} {:>12.1f} {:>7} {:>11.2f} {:>7}\n", tokens, row.forward_ms,
               Ratio(row.forward_ms, last.forward_ms), row.backward_ms, Ratio(row.backward_ms, last.backward_ms),
               row.extra_mib, Ratio(row.extra_mib, last.extra_mib));
    if (tokens > 2048 && row.extra_mib > 2.2 * last.extra_mib + 1) linear = false;
    last = row;
  }
  fmt::print("extra memory is {} in the number of tokens\n", linear ? "at most linear" : "NOT linear");
  return linear ? 0 : 1;
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) { return longspan::test::Main(argc > 1 ? std::atoll(argv[1]) : 16384); }

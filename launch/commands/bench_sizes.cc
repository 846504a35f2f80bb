#include "launch/commands/bench_sizes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "launch/commands/option_values.h"
#include "runtime/device.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int64_t kLargestSize = int64_t{1} << 30;

// Of "H,G,K,V"; false: it is none.
bool ReadShape(const std::string& text, AttentionCore::Sizes* sizes) {
  long long heads = 0, groups = 0, key_width = 0, value_width = 0;
  char rest = 0;
  const int read = std::sscanf(text.c_str(), "%lld,%lld,%lld,%lld%c", &heads, &groups, &key_width, &value_width, &rest);
  const auto size = [](long long value) { return value > 0 && value <= 1 << 20; };
  *sizes = {heads, groups, key_width, value_width};
  return read == 4 && size(heads) && size(groups) && size(key_width) && size(value_width) && heads % groups == 0 &&
         key_width % 2 == 0;
}

}  // namespace

bool BenchSizes::OnGpu() const {
  return device == BenchDevice::kGpu || (device == BenchDevice::kAuto && GpuCount() > 0);
}

DType BenchSizes::Type() const {
  if (OnGpu()) return type == BenchType::kF32 ? DType::kF32 : DType::kBf16;
  if (type == BenchType::kBf16) Fail(ExitCode::kConfig, "--type bf16: needs a GPU; the CPU computes in F32");
  return DType::kF32;
}

std::vector<int64_t> BenchSizes::Lengths() const {
  const std::vector<std::string> problems = Problems(nsa, "--");
  if (!problems.empty()) Fail(ExitCode::kUsage, "{}", fmt::join(problems, "; "));
  const std::vector<int64_t> lengths =
      tokens.empty() ? std::vector<int64_t>{OnGpu() ? gpu_tokens : cpu_tokens} : tokens;
  for (const int64_t length : lengths) {
    if (length >= nsa.block && length % nsa.stride == 0) continue;
    Fail(ExitCode::kUsage, "--tokens {}: expected --block = {} or more, and a multiple of --stride = {}", length,
         nsa.block, nsa.stride);
  }
  return lengths;
}

AttentionCore::Sizes BenchSizes::ParseShape(const std::string& text) {
  AttentionCore::Sizes sizes{};
  LS_CHECK(ReadShape(text, &sizes), "shape {}", text);
  return sizes;
}

std::vector<std::pair<std::string, int64_t>> NamedSizes(int64_t tokens, const AttentionCore::Sizes& sizes,
                                                        const NsaConfig& nsa) {
  return {{"tokens", tokens},
          {"heads", sizes.heads},
          {"groups", sizes.kv_heads},
          {"key_width", sizes.key_width},
          {"value_width", sizes.value_width},
          {"block", nsa.block},
          {"stride", nsa.stride},
          {"select_block", nsa.select_block},
          {"select", nsa.select},
          {"init", nsa.init},
          {"local", nsa.local},
          {"window", nsa.window}};
}

void AddBenchSizes(CLI::App& app, BenchSizes* sizes) {
  const auto size = [&](const std::string& name, int64_t* value, int64_t least, const char* what) {
    app.add_option(name, *value, what)
        ->transform(WholeNumber(least, kLargestSize))
        ->type_name("N")
        ->group("Sizes")
        ->capture_default_str();
  };
  app.add_option(
         "--tokens", sizes->tokens,
         fmt::format("Lengths of the sequence ({} on a GPU, {} on a CPU)", sizes->gpu_tokens, sizes->cpu_tokens))
      ->delimiter(',')
      ->transform(WholeNumber(1, kLargestSize))
      ->type_name("S,...")
      ->group("Sizes");
  app.add_option("--shape", sizes->shapes, "Heads, groups and widths; may be repeated")
      ->allow_extra_args(false)
      ->check(CLI::Validator(
          [](const std::string& text) {
            AttentionCore::Sizes unused{};
            if (ReadShape(text, &unused)) return std::string();
            return fmt::format("expected H,G,K,V, such as 64,4,128,128: G divides H and K is even; found {}", text);
          },
          ""))
      ->type_name("H,G,K,V")
      ->group("Sizes")
      ->capture_default_str();
  size("--block", &sizes->nsa.block, 0, "Tokens of a compressed token");
  size("--stride", &sizes->nsa.stride, 0, "Distance between compressed tokens");
  size("--select-block", &sizes->nsa.select_block, 0, "Tokens of a selection block");
  size("--select", &sizes->nsa.select, 1, "Blocks that a query takes");
  size("--init", &sizes->nsa.init, 0, "First blocks, always taken");
  size("--local", &sizes->nsa.local, 0, "Last blocks, always taken");
  size("--window", &sizes->nsa.window, 0, "Tokens of the window branch");
  app.add_option("--phi", sizes->nsa.phi, "MLP (default), LINEAR or MEAN: how a block is compressed")
      ->transform(OneOf<Phi>({{"MLP", Phi::kMlp}, {"LINEAR", Phi::kLinear}, {"MEAN", Phi::kMean}}))
      ->type_name("PHI")
      ->group("Sizes");
  app.add_option("--device", sizes->device, "cpu or gpu; by default a GPU where there is one")
      ->transform(OneOf<BenchDevice>({{"cpu", BenchDevice::kCpu}, {"gpu", BenchDevice::kGpu}}))
      ->type_name("DEVICE");
  app.add_option("--type", sizes->type, "f32 or bf16; by default bf16 on a GPU")
      ->transform(OneOf<BenchType>({{"f32", BenchType::kF32}, {"bf16", BenchType::kBf16}}))
      ->type_name("TYPE");
  app.add_option("--runs", sizes->runs, "Runs of each, after one that warms up")
      ->transform(WholeNumber(1, 10000))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--json", sizes->json, "Where all numbers go (launch/report/bench_report.h)")->type_name("FILE");
}

}  // namespace longspan

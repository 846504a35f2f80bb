// `longspan bench nsa`: how fast each stage of the NSA operator is on this machine, and how near to what it can.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>

#include "launch/commands/bench_lists.h"
#include "launch/commands/bench_nsa.h"
#include "launch/commands/command.h"
#include "launch/commands/option_values.h"
#include "launch/train/selection_file.h"
#include "launch/version.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

constexpr int64_t kMost = int64_t{1} << 30;  // of any size

enum class On { kAuto, kCpu, kGpu };
enum class Type { kAuto, kF32, kBf16 };

struct BenchOptions {
  std::vector<int64_t> tokens;
  std::vector<std::string> shapes = {"64,4,128,128"};
  NsaConfig nsa;
  On device = On::kAuto;    // AUTO: a GPU where there is one
  Type type = Type::kAuto;  // AUTO: BF16 on a GPU
  double keep = -1;         // below 0: not given
  std::string selected;     // selection file; empty: not given
  int64_t runs = 10;
  bool forward = false, full = false;
  std::string json;
};

// "H,G,K,V"; what is wrong with it, "" for nothing.
std::string ParseShape(const std::string& text, NsaBenchCase* bench) {
  long long heads = 0, groups = 0, key_width = 0, value_width = 0;
  char rest = 0;
  const int read = std::sscanf(text.c_str(), "%lld,%lld,%lld,%lld%c", &heads, &groups, &key_width, &value_width, &rest);
  const auto size = [](long long value) { return value > 0 && value <= 1 << 20; };
  const bool good = read == 4 && size(heads) && size(groups) && size(key_width) && size(value_width);
  if (good && heads % groups == 0 && key_width % 2 == 0) {
    bench->heads = heads;
    bench->groups = groups;
    bench->key_width = key_width;
    bench->value_width = value_width;
    return "";
  }
  return fmt::format("expected H,G,K,V, such as 64,4,128,128: G divides H and K is even; found {}", text);
}

bool OnGpu(const BenchOptions& options) {
  return options.device == On::kGpu || (options.device == On::kAuto && GpuCount() > 0);
}

// What all cases have in common.
NsaBenchCase Base(const BenchOptions& options) {
  NsaBenchCase base;
  base.nsa = options.nsa;
  base.dtype = OnGpu(options) && options.type != Type::kF32 ? DType::kBf16 : DType::kF32;
  if (!OnGpu(options) && options.type == Type::kBf16) {
    Fail(ExitCode::kConfig, "--type bf16: needs a GPU; the CPU computes in F32");
  }
  base.runs = options.runs;
  base.backward = !options.forward;
  base.full = options.full;
  base.selection = "as the operator chooses on random values";
  if (options.keep >= 0)
    base.selection = fmt::format("random, each block kept by the next query with {}", options.keep);
  return base;
}

std::vector<NsaBenchCase> Cases(const BenchOptions& options) {
  NsaBenchCase base = Base(options);
  std::vector<int64_t> tokens = options.tokens;
  Shape recorded;
  if (!options.selected.empty()) {
    const SelectionFile file(options.selected, base.nsa.select_block);
    recorded = file.shape(kSelected);
    base.selected = file.Read(kSelected, recorded, {});
    base.selection = options.selected;
    base.nsa.select = recorded[2];
    if (tokens.empty()) tokens = {recorded[0]};
  }
  if (tokens.empty()) tokens = {OnGpu(options) ? 65536 : 4096};
  const std::vector<std::string> problems = Problems(base.nsa, "--");
  if (!problems.empty()) Fail(ExitCode::kUsage, "{}", fmt::join(problems, "; "));

  std::vector<NsaBenchCase> cases;
  for (const std::string& text : options.shapes) {
    for (const int64_t length : tokens) {
      NsaBenchCase& bench = cases.emplace_back(base);
      bench.tokens = length;
      ParseShape(text, &bench);
      const Shape shape = {length, bench.groups, base.nsa.select};
      if (!options.selected.empty() && recorded != shape) {
        Fail(ExitCode::kData, "{}: {}: expected [S,G,N] = {} for --shape {}, found {}", options.selected, kSelected,
             shape.ToString(), text, recorded.ToString());
      }
      if (length < base.nsa.block || length % base.nsa.stride != 0) {
        Fail(ExitCode::kUsage, "--tokens {}: expected --block = {} or more, and a multiple of --stride = {}", length,
             base.nsa.block, base.nsa.stride);
      }
    }
  }
  return cases;
}

int RunBench(const BenchOptions& options) {
  std::vector<NsaBenchCase> cases = Cases(options);
  if (!options.json.empty()) OutputFile writable(options.json);
  const auto device = OnGpu(options) ? MakeGpuDevice(0) : MakeCpuDevice();
  BenchReport report{Version(), device->name(), DTypeName(cases[0].dtype), options.runs, {}};
  fmt::print("longspan bench nsa: {}, {}, medians of {} runs\n", report.device, report.dtype, report.runs);
  ExitCode code = ExitCode::kOk;
  for (NsaBenchCase& bench : cases) {
    if (options.keep >= 0) {
      bench.selected = DrawSelection({bench.tokens, bench.groups, bench.nsa.select}, bench.nsa, options.keep);
    }
    BenchCase& found = report.cases.emplace_back(DescribeNsaBench(bench));
    try {
      found = BenchNsa(*device, bench);
    } catch (const Error& error) {  // the others may still have memory enough
      found.error = error.what();
      code = error.code();
    }
    bench.selected = {};
    fmt::print("\n{}", BenchTable(found));
    std::fflush(stdout);
  }
  if (!options.json.empty()) WriteBenchReport(options.json, report);
  return static_cast<int>(code);
}

std::function<int()> AddBench(CLI::App& app) {
  const auto options = std::make_shared<BenchOptions>();
  app.require_subcommand(1);
  CLI::App* const nsa = app.add_subcommand("nsa", "Time the stages of Native Sparse Attention");
  const auto size = [&](const std::string& name, int64_t* value, const char* what) {
    nsa->add_option(name, *value, what)
        ->transform(WholeNumber(0, kMost))
        ->type_name("N")
        ->group("Sizes")
        ->capture_default_str();
  };
  nsa->add_option("--tokens", options->tokens, "Lengths of the sequence (65536 on a GPU, 4096 on a CPU)")
      ->delimiter(',')
      ->transform(WholeNumber(1, kMost))
      ->type_name("S,...")
      ->group("Sizes");
  nsa->add_option("--shape", options->shapes, "Heads, groups and widths; may be repeated")
      ->allow_extra_args(false)
      ->check(CLI::Validator(
          [](const std::string& text) {
            NsaBenchCase unused;
            return ParseShape(text, &unused);
          },
          ""))
      ->type_name("H,G,K,V")
      ->group("Sizes")
      ->capture_default_str();
  size("--block", &options->nsa.block, "Tokens of a compressed token");
  size("--stride", &options->nsa.stride, "Distance between compressed tokens");
  size("--select-block", &options->nsa.select_block, "Tokens of a selection block");
  CLI::Option* const select = nsa->add_option("--select", options->nsa.select, "Blocks that a query takes");
  select->transform(WholeNumber(1, kMost))->type_name("N")->group("Sizes")->capture_default_str();
  size("--init", &options->nsa.init, "First blocks, always taken");
  size("--local", &options->nsa.local, "Last blocks, always taken");
  size("--window", &options->nsa.window, "Tokens of the window branch");
  nsa->add_option("--phi", options->nsa.phi, "MLP (default), LINEAR or MEAN: how a block is compressed")
      ->transform(OneOf<Phi>({{"MLP", Phi::kMlp}, {"LINEAR", Phi::kLinear}, {"MEAN", Phi::kMean}}))
      ->type_name("PHI")
      ->group("Sizes");
  CLI::Option* const keep = nsa->add_option(
      "--keep", options->keep, "Random blocks, of which the next query keeps this share: 0 is all at random");
  keep->check(CLI::Range(0.0, 1.0).description(""))->type_name("SHARE")->group("Selection");
  nsa->add_option("--selected", options->selected, "Blocks from a selection file, which gives S and N")
      ->type_name("FILE")
      ->group("Selection")
      ->excludes(keep)
      ->excludes(select);
  nsa->add_option("--device", options->device, "cpu or gpu; by default a GPU where there is one")
      ->transform(OneOf<On>({{"cpu", On::kCpu}, {"gpu", On::kGpu}}))
      ->type_name("DEVICE");
  nsa->add_option("--type", options->type, "f32 or bf16; by default bf16 on a GPU")
      ->transform(OneOf<Type>({{"f32", Type::kF32}, {"bf16", Type::kBf16}}))
      ->type_name("TYPE");
  nsa->add_option("--runs", options->runs, "Runs of each stage, after one that warms up")
      ->transform(WholeNumber(1, 10000))
      ->type_name("N")
      ->capture_default_str();
  nsa->add_flag("--forward", options->forward, "No backward");
  nsa->add_flag("--full", options->full, "Dense attention, too");
  nsa->add_option("--json", options->json, "Where all numbers go (launch/report/bench_report.h)")->type_name("FILE");
  nsa->footer(R"(
Examples:
  longspan bench nsa
  longspan bench nsa --tokens 8192,32768,65536 --shape 64,4,128,128 --shape 16,4,128,128 --json bench.json
  longspan bench nsa --keep 0.94
  longspan bench nsa --selected trained.safetensors)");
  return [options] { return RunBench(*options); };
}

}  // namespace

extern const Command kBench = {"bench", "Time the kernels on this machine", R"(
Examples:
  longspan bench nsa --tokens 8192,65536 --json bench.json)",
                               AddBench};

}  // namespace longspan

// `longspan bench nsa`: how fast each stage of the NSA operator is on this machine, and how near to what it can. And
// the menu of benchmarks.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "launch/commands/bench_layer.h"
#include "launch/commands/bench_lists.h"
#include "launch/commands/bench_nsa.h"
#include "launch/commands/bench_sizes.h"
#include "launch/commands/command.h"
#include "launch/train/selection_file.h"
#include "launch/version.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

struct BenchOptions {
  BenchSizes sizes;
  double keep = -1;      // below 0: not given
  std::string selected;  // selection file; empty: not given
  bool forward = false, full = false;
};

// What all cases have in common.
NsaBenchCase Base(const BenchOptions& options) {
  NsaBenchCase base;
  base.nsa = options.sizes.nsa;
  base.dtype = options.sizes.Type();
  base.runs = options.sizes.runs;
  base.backward = !options.forward;
  base.full = options.full;
  base.selection = "as the operator chooses on random values";
  if (options.keep >= 0)
    base.selection = fmt::format("random, each block kept by the next query with {}", options.keep);
  return base;
}

std::vector<NsaBenchCase> Cases(const BenchOptions& options) {
  NsaBenchCase base = Base(options);
  BenchSizes sizes = options.sizes;
  Shape recorded;
  if (!options.selected.empty()) {
    const SelectionFile file(options.selected, base.nsa.select_block);
    recorded = file.shape(kSelected);
    base.selected = file.Read(kSelected, recorded, {});
    base.selection = options.selected;
    base.nsa.select = sizes.nsa.select = recorded[2];
    if (sizes.tokens.empty()) sizes.tokens = {recorded[0]};
  }
  const std::vector<int64_t> lengths = sizes.Lengths();

  std::vector<NsaBenchCase> cases;
  for (const std::string& text : sizes.shapes) {
    for (const int64_t length : lengths) {
      NsaBenchCase& bench = cases.emplace_back(base);
      bench.tokens = length;
      bench.sizes = BenchSizes::ParseShape(text);
      const Shape shape = {length, bench.sizes.kv_heads, base.nsa.select};
      if (!options.selected.empty() && recorded != shape) {
        Fail(ExitCode::kData, "{}: {}: expected [S,G,N] = {} for --shape {}, found {}", options.selected, kSelected,
             shape.ToString(), text, recorded.ToString());
      }
    }
  }
  return cases;
}

int RunBenchNsa(const BenchOptions& options) {
  std::vector<NsaBenchCase> cases = Cases(options);
  if (!options.sizes.json.empty()) OutputFile writable(options.sizes.json);
  const auto device = options.sizes.OnGpu() ? MakeGpuDevice(0) : MakeCpuDevice();
  BenchReport report{Version(), device->name(), DTypeName(cases[0].dtype), options.sizes.runs, {}};
  fmt::print("longspan bench nsa: {}, {}, medians of {} runs\n", report.device, report.dtype, report.runs);
  ExitCode code = ExitCode::kOk;
  for (NsaBenchCase& bench : cases) {
    if (options.keep >= 0) {
      bench.selected = DrawSelection({bench.tokens, bench.sizes.kv_heads, bench.nsa.select}, bench.nsa, options.keep);
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
  if (!options.sizes.json.empty()) WriteBenchReport(options.sizes.json, report);
  return static_cast<int>(code);
}

std::function<int()> AddBenchNsa(CLI::App* nsa) {
  const auto options = std::make_shared<BenchOptions>();
  AddBenchSizes(*nsa, &options->sizes);
  CLI::Option* const keep = nsa->add_option(
      "--keep", options->keep, "Random blocks, of which the next query keeps this share: 0 is all at random");
  keep->check(CLI::Range(0.0, 1.0).description(""))->type_name("SHARE")->group("Selection");
  nsa->add_option("--selected", options->selected, "Blocks from a selection file, which gives S and N")
      ->type_name("FILE")
      ->group("Selection")
      ->excludes(keep)
      ->excludes(nsa->get_option("--select"));
  nsa->add_flag("--forward", options->forward, "No backward");
  nsa->add_flag("--full", options->full, "Dense attention, too");
  nsa->footer(R"(
Examples:
  longspan bench nsa
  longspan bench nsa --tokens 8192,32768,65536 --shape 64,4,128,128 --shape 16,4,128,128 --json bench.json
  longspan bench nsa --keep 0.94
  longspan bench nsa --selected trained.safetensors)");
  return [options] { return RunBenchNsa(*options); };
}

std::function<int()> AddBench(CLI::App& app) {
  app.require_subcommand(1);
  CLI::App* const nsa = app.add_subcommand("nsa", "Time the stages of Native Sparse Attention on one device");
  CLI::App* const layer = app.add_subcommand("layer", "Time the attention of a layer over ranks, with its transfers");
  return [nsa, run_nsa = AddBenchNsa(nsa), run_layer = AddBenchLayer(*layer)] {
    return nsa->parsed() ? run_nsa() : run_layer();
  };
}

}  // namespace

extern const Command kBench = {"bench", "Time the kernels on this machine", R"(
Examples:
  longspan bench nsa --tokens 8192,65536 --json bench.json
  mpirun -np 4 longspan bench layer --tokens 131072)",
                               AddBench};

}  // namespace longspan

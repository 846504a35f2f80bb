// `longspan plan`: what a step will take, on machines that need not be there.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "launch/commands/command.h"
#include "launch/commands/configured.h"
#include "launch/commands/option_values.h"
#include "launch/commands/planned_run.h"
#include "launch/config/config.h"
#include "launch/plan/planned_step.h"
#include "launch/plan/ranks_text.h"
#include "launch/plan/rates.h"
#include "runtime/count.h"
#include "runtime/error.h"

namespace longspan {
namespace {

struct GivenPlan {
  int64_t world = 0;
  PlanRates rates;
  double coverage = 1;
  uint64_t device_memory = 0;
};

// Longest, or most bytes, first.
std::string SpanTable(const PlannedStep& step, const std::optional<PlannedTimes>& times, bool transfers) {
  std::vector<std::pair<std::string, SpanTotal>> rows;
  for (const auto& row : step.spans) {
    if (IsTransfer(row.first) == transfers) rows.push_back(row);
  }
  const auto key = [&](const auto& row) { return std::pair(times ? times->spans.at(row.first) : 0, row.second.bytes); };
  std::sort(rows.begin(), rows.end(), [&](const auto& a, const auto& b) { return key(a) > key(b); });
  std::string text = fmt::format("  {:<32}{:>8}{:>12}{:>12}{}\n", transfers ? "transfers" : "work", "count", "GFLOP",
                                 "MB", times ? "          ms" : "");
  for (const auto& [name, span] : rows) {
    text += fmt::format("  {:<32}{:>8}{:>12.1f}{:>12.1f}", name, span.count, 1e-9 * span.flops, 1e-6 * span.bytes);
    text += times ? fmt::format("{:>12.2f}\n", 1e3 * times->spans.at(name)) : "\n";
  }
  return text;
}

// The devices that are planned for, unless the configuration names others.
PlannedRank DeviceOf(const RuntimeConfig& config) {
  PlannedRank rank;
  if (config.device == RuntimeDevice::kCpu) rank.device = DeviceKind::kCpu;
  if (config.device == RuntimeDevice::kCpu || config.dtype == RuntimeType::kF32) rank.dtype = DType::kF32;
  return rank;
}

int Plan(const RunConfig& config, const GivenPlan& given) {
  const ParallelConfig& parallel = config.parallel;
  PlannedRank rank = DeviceOf(config.runtime);
  rank.dp = parallel.dp > 0 ? parallel.dp : given.world > 0 ? given.world / parallel.cp : 1;
  rank.coverage = given.coverage;
  rank.rank = BusiestRank(config, rank.dp);
  const int64_t ranks = rank.dp * parallel.cp;
  std::optional<DeviceRates> rates;
  if (!given.rates.path.empty()) rates.emplace(given.rates.path, config);

  const PlannedStep step = PlanStep(config, rank);
  const char* const unknown = step.nccl_bytes < 0 ? "  without what NCCL takes, known for up to eight ranks\n" : "";
  fmt::print("{}\n{} parameters\n\nMemory of rank {} on {}, {}:\n{}{}", RanksText(config, rank.dp), step.parameters,
             rank.rank, DeviceName(rank.device), DTypeName(rank.dtype),
             MemoryTable(step.memory, given.device_memory > 0 ? static_cast<int64_t>(given.device_memory) : -1,
                         step.host_memory, Besides(step)),
             unknown);
  std::optional<PlannedTimes> times;
  if (rates) times = TimesOf(step, *rates, given.rates);
  if (parallel.selected_exchange == SelectedExchange::kAuto && parallel.cp > 1) {
    fmt::print(
        "\nparallel.selected_exchange = AUTO: memory is FETCH's, the step is planned as one of GATHER; what is faster "
        "the run itself measures.\n");
  }
  fmt::print("\nA step of rank {}:\n{}", rank.rank, SpanTable(step, times, /*transfers=*/false));
  if (ranks > 1) fmt::print("{}", SpanTable(step, times, /*transfers=*/true));

  double flops = 0, received = 0;
  for (const auto& [name, span] : step.spans)
    (IsTransfer(name) ? received : flops) += IsTransfer(name) ? span.bytes : span.flops;
  const double all = flops * static_cast<double>(ranks);
  const double dense = DenseEquivalentFlops(config, step, ranks);
  fmt::print(
      "\n  executed            {:.1f} TFLOP a step over {}, counted beside the launches, a multiply-add as two\n"
      "  dense-equivalent    {:.1f} TFLOP, {:.1f} times as much: every layer S(S+1)/2 pairs a head of 2(K+V) + "
      "2(3K+2V)\n"
      "  received            {:.1f} MB a step and rank\n",
      1e-12 * all, Count(ranks, "rank"), 1e-12 * dense, dense / all, 1e-6 * received);
  if (!times) return 0;

  const auto tokens = static_cast<double>(config.train.sequences_per_step * config.data.sequence_length);
  const double least = std::max(times->compute, times->transfers), most = times->compute + times->transfers;
  fmt::print("  rates               {}, {}\n", rates->device(), rates->measured_at());
  const auto line = [&](const char* what, double seconds) {
    fmt::print("  {:<20}{:.1f} ms, {:.0f} tokens/s, {:.1f}% of peak executed, {:.1f}% dense-equivalent\n", what,
               1e3 * seconds, tokens / seconds, 100 * flops / seconds / rates->matmul_flops(),
               100 * dense / static_cast<double>(ranks) / seconds / rates->matmul_flops());
  };
  if (ranks == 1) {
    line("step", most);
  } else if (given.rates.link_gbps > 0) {
    line("step, all hidden", least);
    line("step, none hidden", most);
    fmt::print("  exposed             {:.1f} ms at most, {:.1f}% of the step\n", 1e3 * (most - times->compute),
               100 * (most - times->compute) / most);
  } else {
    line("without transfers", times->compute);
    fmt::print("  transfers           not timed: --link-gbps says how fast they are\n");
  }
  return 0;
}

std::function<int()> AddPlan(CLI::App& app) {
  const auto config = AddConfig(app);
  const auto given = std::make_shared<GivenPlan>();
  app.add_option("--world", given->world, "Ranks (default: what parallel.cp and .dp say)")
      ->type_name("N")
      ->transform(WholeNumber(1, 1 << 20));
  app.add_option("--rates", given->rates.path, "How fast the device is: what longspan bench nsa --json wrote there")
      ->type_name("FILE");
  app.add_option("--link-gbps", given->rates.link_gbps, "GB/s that a rank receives, as large transfers reach it")
      ->type_name("GB/s")
      ->check(CLI::PositiveNumber.description(""))
      ->needs("--rates");
  app.add_option("--latency-us", given->rates.latency_us, "Microseconds of a transfer besides")
      ->type_name("US")
      ->check(CLI::NonNegativeNumber.description(""))
      ->capture_default_str();
  app.add_option("--coverage", given->coverage,
                 "parallel.selected_exchange = FETCH: share of other ranks' blocks that a layer fetches")
      ->type_name("SHARE")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->capture_default_str();
  app.add_option("--device-memory", given->device_memory, "Memory that each rank has, such as 80GiB")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true).description(""));
  return [config, given] {
    const LoadedConfig loaded = ReadConfig(config->path, config->overrides, given->world);
    RefuseProblems(loaded.problems);
    return Plan(loaded.config, *given);
  };
}

}  // namespace

extern const Command kPlan = {"plan", "What a step takes, on machines that need not be there", R"(
Runs the program's own step on a device that only counts: memory, FLOPs and bytes are those of a real step. GPUs and BF16
unless runtime.device or runtime.dtype say otherwise. Times need --rates; a stage takes as long as its FLOPs or bytes do
at the rate that the bench found for it, all else what large matrix products and copies take. Data is not opened.

Examples:
  longspan plan --config configs/nsa_1b.textproto parallel.cp=8 --world 4096 train.sequences_per_step=512
  longspan bench nsa --tokens 8192,65536 --phi MEAN --json rates.json
  longspan plan --config configs/nsa_1b.textproto parallel.cp=2 --rates configs/rates/h100.json --link-gbps 250)",
                              AddPlan};

}  // namespace longspan

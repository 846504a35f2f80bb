// `longspan train`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/configured.h"
#include "launch/commands/dry_run.h"
#include "launch/commands/planned_run.h"
#include "launch/report/report.h"
#include "launch/train/trainer.h"
#include "launch/version.h"

namespace longspan {
namespace {

struct GivenTrain {
  bool overwrite = false, resume = false;
  uint64_t device_memory = 0;
  OlderRun older() const { return overwrite ? OlderRun::kReplace : resume ? OlderRun::kResume : OlderRun::kKeep; }
};

std::function<int()> AddTrain(CLI::App& app) {
  const auto given = std::make_shared<GivenTrain>();
  const auto run = AddConfigured(
      app,
      [given](const RunConfig& config) {
        return RunTrain(config, {given->older(), Version(),
                                 [](const std::string& folder) { return WriteReport(ReadPlannedRun(folder)); }});
      },
      [given](const RunConfig& config, int64_t world) {
        PrintPlan(config, world, {static_cast<int64_t>(given->device_memory), given->older()});
      });
  CLI::Option* const overwrite =
      app.add_flag("--overwrite", given->overwrite, "Replace an older run of the same name")->group("Configuration");
  app.add_flag("--resume", given->resume,
               "Go on from the newest complete checkpoint of the run of this name, on the disk or in memory, if any")
      ->group("Configuration")
      ->excludes(overwrite);
  app.add_option("--device-memory", given->device_memory,
                 "Memory that each rank has, to plan for, such as 80GiB (default: that of the device named here)")
      ->group("Without running")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true).description(""))
      ->needs("--dry-run");
  return run;
}

}  // namespace

extern const Command kTrain = {"train", "Train a model", R"(
Every key and its meaning: configs/run.proto

A run leaves OUTPUT/NAME with config.textproto (every key, as settled), profile/ (where the time of each rank went: see
longspan report) and metrics.jsonl: a line of the start, then one a step and an evaluation; a resumed run adds a line
that says so, with what it lost and the seconds since the line before, and calls "lost" those of steps that came after its
checkpoint and are done again. In it
  loss               mean over the labels of the step, null without any; of an evaluation, over its held-out sequences
  loss_z, norm_z     how many standard deviations loss and grad_norm lie above the mean of the 128 steps before; null
                     for the first 32
  skipped            the update was not made: loss or grad_norm not finite, or above train.max_z_score
  cause              of the first of skipped updates: the rank and tensor that were not finite
  elapsed, ms        seconds since the start; milliseconds of the step
  tokens, labels     of the step over all ranks: tokens count padding, labels only what is learned from
  peak_share         FLOPs of the step, as counted for one document a sequence, per second and of peak_tflops: what
                     the ranks reached on large matrix products before the first step
  memory_mib         the run's own memory, of the rank that has most
  coverage           share of the blocks of other ranks that were fetched for the selected branch; 1 = all (GATHER)
  borrowed_mib       what the forward pass of a sequence brings to a rank from others
  allocations        of memory within the step: 0
  epochs             of each dataset: how often its sequences were passed through by then
  selection          a hash by layer of the blocks that the queries of replica 0's last sequence chose; the same for
                     any number of ranks

A run stops in good order, saved and with exit code 75, by SIGUSR1, SIGUSR2, SIGTERM or SIGINT, a file OUTPUT/NAME/stop,
or train.max_minutes; the last line says how to go on. mpirun forwards the first two and follows the others with SIGKILL.

A rank that keeps others waiting for longer than comm.timeout (comm.load_timeout, .evaluation_timeout and .save_timeout
outside of steps) ends the run with exit code 76 and a message that names it; OUTPUT/NAME/stall-ID has what all ranks did last.

Examples:
  mpirun -np 4 longspan train --config configs/quickstart.textproto
  longspan train --config configs/nsa_1b.textproto parallel.cp=8 runtime.device=GPU --dry-run --world 16 --device-memory 80GiB
  longspan train --config configs/fibonacci.textproto model.attention=NSA,FULL --print-config)",
                               AddTrain};

}  // namespace longspan

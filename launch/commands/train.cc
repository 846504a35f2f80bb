// `longspan train`.
#include "launch/commands/command.h"
#include "launch/commands/configured.h"
#include "launch/commands/plan.h"
#include "launch/train/trainer.h"

namespace longspan {

extern const Command kTrain = {"train", "Train a model", R"(
Every key and its meaning: configs/run.proto

Examples:
  mpirun -np 4 longspan train --config configs/quickstart.textproto
  longspan train --config configs/nsa_1b.textproto parallel.cp=8 --dry-run --world 16
  longspan train --config configs/fibonacci.textproto model.attention=NSA,FULL --print-config)",
                               [](CLI::App& app) { return AddConfigured(app, RunTrain, DescribeRun); }};

}  // namespace longspan

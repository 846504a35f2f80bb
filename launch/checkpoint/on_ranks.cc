#include "launch/checkpoint/on_ranks.h"

#include <exception>

#include "parallel/comm/texts.h"

namespace longspan {

std::vector<Outcome> TryOnRanks(Communicator& world, const std::function<std::string()>& part) {
  Outcome own;
  try {
    own.text = part();
  } catch (const Error& error) {
    own = {error.code(), error.what()};
  } catch (const std::exception& error) {
    own = {ExitCode::kIo, ProcessPrefix() + error.what()};
  }
  std::vector<Outcome> outcomes;
  for (const std::string& text : GatherTexts(world, fmt::format("{} {}", static_cast<int>(own.code), own.text))) {
    outcomes.push_back({static_cast<ExitCode>(std::stoi(text)), text.substr(text.find(' ') + 1)});
  }
  return outcomes;
}

std::vector<std::string> OnAllRanks(Communicator& world, const std::function<std::string()>& part) {
  std::vector<std::string> texts;
  for (const Outcome& outcome : TryOnRanks(world, part)) {
    if (outcome.code != ExitCode::kOk) throw Error(outcome.code, outcome.text);
    texts.push_back(outcome.text);
  }
  return texts;
}

double Largest(Communicator& world, double value) {
  const auto stream = MakeCpuDevice()->MakeStream("checkpoints");
  world.AllReduce(*stream, HostView(&value, {1}), ReduceOp::kMax);
  stream->Synchronize();
  return value;
}

}  // namespace longspan

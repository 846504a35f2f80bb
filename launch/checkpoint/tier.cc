#include "launch/checkpoint/tier.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <utility>

#include "launch/checkpoint/on_ranks.h"
#include "launch/checkpoint/reader.h"
#include "runtime/error.h"
#include "runtime/files/mapped_file.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

constexpr int64_t kPieceBytes = 16 << 20;  // of a file, between nodes

std::vector<std::string> NamesOf(const Manifest& manifest) {
  std::vector<std::string> names;
  for (const auto& [name, file] : manifest.files) names.push_back(name);
  return names;
}

}  // namespace

Tier::Tier(Communicator& world, std::string path, Nodes nodes, bool in_memory)
    : world_(world), path_(std::move(path)), folder_(path_), nodes_(std::move(nodes)), in_memory_(in_memory) {}

bool Tier::keeper() const { return nodes_.place(world_.rank()) == 0; }

std::vector<int64_t> Tier::Steps() const {
  const std::vector<std::string> lists = OnAllRanks(world_, [&] {
    std::vector<int64_t> own;
    if (keeper()) {
      for (const auto& found : folder_.List()) own.push_back(found.step);
    }
    return fmt::format("{}", fmt::join(own, " "));
  });
  std::set<int64_t, std::greater<>> steps;
  for (const std::string& list : lists) {
    std::istringstream own(list);
    for (int64_t step = 0; own >> step;) steps.insert(step);
  }
  return {steps.begin(), steps.end()};
}

Tier::Found Tier::Check(int64_t step) const {
  Found found{this, folder_.PathOf(step), {}, {}};
  // Any node's manifest will do.
  const std::vector<Outcome> manifests =
      TryOnRanks(world_, [&] { return keeper() ? CheckpointReader(found.path).manifest().Text() : std::string(); });
  const Outcome* chosen = &manifests[0];
  for (int node = 1; node < nodes_.count() && chosen->code != ExitCode::kOk; ++node) {
    const Outcome& other = manifests[nodes_.ranks(node)[0]];
    if (other.code == ExitCode::kOk) chosen = &other;
  }
  if (chosen->code != ExitCode::kOk) throw Error(chosen->code, chosen->text);
  found.manifest = Manifest::Parse(chosen->text, found.path);

  // The ranks of a node share out its files. A line each: what it is, and what is wrong with it.
  const CheckpointReader reader(found.path, found.manifest);
  const std::vector<std::string> names = NamesOf(found.manifest);
  const int place = nodes_.place(world_.rank());
  const int sharers = static_cast<int>(nodes_.ranks(nodes_.of(world_.rank())).size());
  const std::vector<std::string> lines = OnAllRanks(world_, [&] {
    std::string said;
    for (size_t i = place; i < names.size(); i += sharers) {
      std::string problem = "0 ";
      try {
        reader.CheckFile(names[i]);
      } catch (const Error& error) {
        problem = fmt::format("{} {}", static_cast<int>(error.code()), error.what());
        std::replace(problem.begin(), problem.end(), '\n', ' ');
      }
      said += fmt::format("{} {}\n", i, problem);
    }
    return said;
  });
  std::vector<std::optional<Error>> problems(names.size());
  for (int rank = 0; rank < world_.size(); ++rank) {
    std::istringstream said(lines[rank]);
    size_t i = 0;
    int code = 0;
    std::string problem;
    while (said >> i >> code && std::getline(said.ignore(), problem)) {
      if (code == 0) {
        found.holders[names[i]].push_back(rank);
      } else if (!problems[i]) {
        problems[i].emplace(static_cast<ExitCode>(code), problem);
      }
    }
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (!found.holders.contains(names[i])) throw Error(*problems[i]);
  }
  return found;
}

void Tier::Bring(const Found& found, const std::set<std::string>& files) const {
  if (nodes_.count() == 1) return;
  const std::vector<std::string> names = NamesOf(found.manifest);
  std::vector<size_t> own;
  for (size_t i = 0; i < names.size(); ++i) {
    if (files.contains(names[i])) own.push_back(i);
  }
  const std::vector<std::string> wishes = OnAllRanks(world_, [&] { return fmt::format("{}", fmt::join(own, " ")); });
  std::vector<Move> moves;
  for (int node = 0; node < nodes_.count(); ++node) {
    std::set<size_t> wanted;
    for (const int rank : nodes_.ranks(node)) {
      std::istringstream wish(wishes[rank]);
      for (size_t i = 0; wish >> i;) wanted.insert(i);
    }
    for (const size_t i : wanted) {
      const std::vector<int>& holders = found.holders.at(names[i]);
      if (std::any_of(holders.begin(), holders.end(), [&](int rank) { return nodes_.of(rank) == node; })) continue;
      moves.push_back({names[i], found.manifest.files.at(names[i]).bytes, holders[0], nodes_.ranks(node)[0]});
    }
  }
  MoveFiles(found.path, moves);
}

void Tier::Spread(int64_t step, const std::vector<Manifest>& parts) const {
  if (nodes_.count() == 1) return;
  std::vector<Move> moves;
  for (int rank = 0; rank < world_.size(); ++rank) {
    for (const auto& [name, file] : parts[rank].files) {
      moves.push_back({name, file.bytes, rank, nodes_.partner(rank)});
    }
  }
  MoveFiles(folder_.PartialOf(step), moves);
}

// Who fails takes part to the end, since others wait for it.
void Tier::MoveFiles(const std::string& path, const std::vector<Move>& moves) const {
  struct Own {
    Own(const Move& move, bool sends) : move(move), sends(sends) {}
    const Move& move;
    const bool sends;
    MappedFile source;
    std::optional<OutputFile> target;
    std::vector<uint8_t> piece;
  };
  OnAllRanks(world_, [&] {
    std::optional<Error> failure;
    const auto unless_failed = [&](const auto& work) {
      try {
        if (!failure) work();
      } catch (const Error& error) {
        failure.emplace(error);
      }
    };
    std::deque<Own> all;
    int64_t longest = 0;
    for (const Move& move : moves) {
      longest = std::max(longest, move.bytes);
      if (move.from != world_.rank() && move.to != world_.rank()) continue;
      Own& own = all.emplace_back(move, move.from == world_.rank());
      unless_failed([&] {
        if (own.sends) {
          own.source = MappedFile(path + "/" + move.file);
          LS_CHECK(own.source.size() == move.bytes, "{}: expected {} bytes, found {}", own.source.path(), move.bytes,
                   own.source.size());
        } else {
          std::error_code error;  // shows when the file is made
          std::filesystem::create_directories(path, error);
          own.target.emplace(path + "/" + move.file);
        }
      });
    }
    const auto stream = MakeCpuDevice()->MakeStream("checkpoints");
    for (int64_t begin = 0; begin < longest; begin += kPieceBytes) {
      std::vector<Transfer> batch;
      for (Own& own : all) {
        own.piece.resize(std::clamp<int64_t>(own.move.bytes - begin, 0, kPieceBytes));
        if (own.piece.empty()) continue;
        if (own.sends && !failure) std::memcpy(own.piece.data(), own.source.data() + begin, own.piece.size());
        batch.push_back({own.sends ? Transfer::Kind::kSend : Transfer::Kind::kReceive,
                         own.sends ? own.move.to : own.move.from, HostView(own.piece.data(), {std::ssize(own.piece)})});
      }
      world_.SendReceive(*stream, batch);
      stream->Synchronize();
      for (Own& own : all) {
        if (!own.sends) unless_failed([&] { own.target->Write(own.piece.data(), std::ssize(own.piece)); });
      }
    }
    for (Own& own : all) {
      if (!own.sends) unless_failed([&] { own.target->Commit(); });
    }
    if (failure) throw Error(*failure);
    return std::string();
  });
}

}  // namespace longspan

#include "launch/train/selections.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "launch/data/batches.h"
#include "parallel/exchange/sequence_rows.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

SequenceRows RowsOf(Session& session) {
  const Context& context = session.context();
  return {context.device, context.compute, context.comm, context.cp, context.layout, context.layout.sequence()};
}

std::vector<int64_t> SelectingLayers(const ModelConfig& model) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    if (model.AttentionOf(layer) == AttentionKind::kNsa) layers.push_back(layer);
  }
  return layers;
}

Shape WholeShape(const RunConfig& config) {
  return {config.data.sequence_length, config.model.kv_heads, config.model.nsa.select};
}

BatchLoader MakeLoader(const SequenceSource& source, const Layout& layout, int cp_index, const RunConfig& config) {
  return {source, layout, cp_index, config.model.nsa, config.data.seed};
}

// The different sequences of steps first..last, from 1, in ascending order.
std::set<int64_t> SequencesOf(BatchLoader& loader, const RunConfig& config, int64_t first, int64_t last) {
  std::set<int64_t> sequences;
  const int64_t count = config.train.sequences_per_step;
  for (int64_t place = (first - 1) * count; place < last * count; ++place) sequences.insert(loader.SequenceAt(place));
  return sequences;
}

}  // namespace

void ObserveSelections(Session& session, const ModelConfig& model, Selections* selections) {
  if (selections == nullptr) return session.model().Observe({});
  selections->assign(model.layers, {});
  session.model().Observe([&session, selections](int64_t layer) {
    const NsaCore* const nsa = session.model().attention(layer).nsa();
    if (nsa == nullptr) return;
    Shape shape = nsa->selected().shape;
    shape[0] = session.layout().sequence();
    std::vector<int32_t>& selected = (*selections)[layer];
    selected.resize(session.context().cp.rank() == 0 ? shape.count() : 0);
    RowsOf(session).Gather(nsa->selected(), HostView(selected.data(), shape));
  });
}

std::vector<uint64_t> SelectionHashes(Session& session, Communicator& cp) {
  const Tensor& hashes = session.model().selection_hashes();
  session.compute().Synchronize();
  cp.AllReduce(session.comm(), hashes, ReduceOp::kSum);
  session.comm().Synchronize();
  const std::vector<int64_t> values = session.ToHost<int64_t>(hashes);
  return {values.begin(), values.end()};
}

FrozenSelection::FrozenSelection(Session& session, const ModelConfig& model) : session_(session), given_(model.layers) {
  for (const int64_t layer : SelectingLayers(model)) {
    session.arena().Reserve(&given_[layer], MemoryUse::kWorkspace, fmt::format("layers.{}.frozen_selection", layer),
                            DType::kI32, {session.layout().tokens(), model.kv_heads, model.nsa.select});
  }
}

void FrozenSelection::Set(const Selections& selections) {
  for (size_t layer = 0; layer < given_.size(); ++layer) {
    const Tensor& given = given_[layer];
    if (!given) continue;
    Shape whole = given.shape;
    whole[0] = session_.layout().sequence();
    RowsOf(session_).Scatter(HostView(selections[layer].data(), whole), given);
    session_.model().attention(static_cast<int64_t>(layer)).nsa()->FreezeSelection(given);
  }
}

void FrozenSelection::Clear() {
  for (size_t layer = 0; layer < given_.size(); ++layer) {
    if (given_[layer]) session_.model().attention(static_cast<int64_t>(layer)).nsa()->FreezeSelection({});
  }
}

GivenSelections::GivenSelections(const RunConfig& config)
    : config_(config), file_(config.train.frozen_selection, config.model.nsa.select_block) {
  if (sequences().empty()) {
    Fail(ExitCode::kData, "{}: expected the selections of a model, as train.record_selection writes them, such as {}",
         file_.path(), SelectionName(0, 0));
  }
}

void GivenSelections::Check(const SequenceSource& source, int64_t sequence) const {
  if (sequence < 0 || sequence >= source.size()) {
    Fail(ExitCode::kData, "{}: sequence {}: the training data has sequences 0 to {}", file_.path(), sequence,
         source.size() - 1);
  }
  const std::vector<int64_t> found = file_.layers(sequence), expected = SelectingLayers(config_.model);
  if (found.empty()) {
    Fail(ExitCode::kData, "{}: expected the selections of sequence {}, which the run takes; found those of {}",
         file_.path(), sequence, fmt::join(sequences(), ", "));
  }
  if (found != expected) {
    Fail(ExitCode::kData, "{}: sequence {}: expected the layers {}, whose attention is NSA; found {}", file_.path(),
         sequence, fmt::join(expected, ", "), fmt::join(found, ", "));
  }
  Sequence inputs(source.length());
  source.Fill(sequence, inputs.tokens, inputs.targets, inputs.doc_start);
  for (const int64_t layer : expected) {
    file_.Read(SelectionName(sequence, layer), WholeShape(config_), inputs.doc_start);
  }
}

void GivenSelections::CheckRun(const SequenceSource& source, const Layout& layout) const {
  BatchLoader loader = MakeLoader(source, layout, 0, config_);
  for (const int64_t sequence : SequencesOf(loader, config_, 1, config_.train.steps)) Check(source, sequence);
}

Selections GivenSelections::Of(int64_t sequence) const {
  Selections selections(config_.model.layers);
  for (const int64_t layer : SelectingLayers(config_.model)) {
    selections[layer] = file_.Read(SelectionName(sequence, layer));
  }
  return selections;
}

int64_t RecordStep(const TrainConfig& train, bool writes) {
  if (train.record_selection.empty()) return 0;
  if (writes) OutputFile tried(train.record_selection);
  return train.record_step > 0 ? train.record_step : train.steps;
}

std::optional<GivenSelections> OpenGivenSelections(const RunConfig& config, const SequenceSource& source,
                                                   const Layout& layout, Communicator& world) {
  std::optional<GivenSelections> given;
  if (config.train.frozen_selection.empty()) return given;
  given.emplace(config);
  RequireAgreement(world, ExitCode::kData, "the selection", {given->claim()});
  given->CheckRun(source, layout);
  return given;
}

RecordedSelections RecordSelections(Job& job, Session& session, const SequenceSource& source, const RunConfig& config,
                                    int64_t step) {
  const Mesh& mesh = job.mesh();
  RecordedSelections recorded;
  if (mesh.dp_index() != 0) return recorded;
  BatchLoader loader = MakeLoader(source, session.layout(), mesh.cp_index(), config);
  SelectionWriter writer(config.model.nsa.select_block);
  writer.Note("step", std::to_string(step));
  writer.Note("data", source.Summary());
  const std::set<int64_t> sequences = SequencesOf(loader, config, step, step);
  Selections selections;
  ObserveSelections(session, config.model, &selections);
  Batch batch;
  for (const int64_t sequence : sequences) {
    loader.LoadSequence(sequence, batch);
    session.compute().Synchronize();  // the sequence before has left its page-locked memory
    session.Load(batch);
    session.model().Forward(session.inputs());
    for (const int64_t layer : SelectingLayers(config.model)) {
      if (!job.root()) continue;
      writer.Add(SelectionName(sequence, layer), selections[layer], WholeShape(config));
      const double weight = 1 / static_cast<double>(sequences.size());
      recorded.layers[layer].Add(
          StatsOf(selections[layer], WholeShape(config), session.layout(), config.model.nsa.window), weight);
    }
  }
  ObserveSelections(session, config.model, nullptr);
  if (job.root()) writer.Write(config.train.record_selection);
  recorded.line = fmt::format("  selection  of step {}, sequences {}: {}", step, fmt::join(sequences, ", "),
                              config.train.record_selection);
  return recorded;
}

}  // namespace longspan

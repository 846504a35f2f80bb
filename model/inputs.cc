#include "model/inputs.h"

#include <algorithm>

#include "runtime/error.h"

namespace longspan {

void CutSequence(const Sequence& sequence, const Layout& layout, int rank, const NsaConfig& nsa, Batch* batch) {
  batch->doc_start = sequence.doc_start;
  batch->labels = layout.sequence() - std::count(sequence.targets.begin(), sequence.targets.end(), -1);
  batch->tokens.resize(layout.tokens());
  batch->targets.resize(layout.tokens());
  batch->positions.resize(layout.tokens());
  for (const Segment& segment : layout.segments(rank)) {
    for (int64_t i = 0; i < segment.length; ++i) {
      const int64_t t = segment.begin + i, row = segment.row + i;
      batch->tokens[row] = sequence.tokens[t];
      batch->targets[row] = sequence.targets[t];
      batch->positions[row] = static_cast<int32_t>(t) - sequence.doc_start[t];
    }
  }
  batch->summary_positions = SummaryPositions(layout, rank, nsa, sequence.doc_start);
}

std::vector<int32_t> SummaryPositions(const Layout& layout, int rank, const NsaConfig& nsa,
                                      std::span<const int32_t> doc_start) {
  std::vector<int32_t> positions(layout.tokens() / nsa.stride);
  for (const Segment& segment : layout.segments(rank)) {
    // Row i of the sequence's compressed rows holds token i - lead.
    for (int64_t i = 0; i < segment.length / nsa.stride; ++i) {
      const int64_t t = (segment.begin / nsa.stride + i - nsa.lead()) * nsa.stride;
      positions[segment.row / nsa.stride + i] = t < 0 ? 0 : static_cast<int32_t>(t) - doc_start[t];
    }
  }
  return positions;
}

void ValidateDocStart(std::span<const int32_t> doc_start, int64_t select_block, const std::string& what) {
  for (int64_t t = 0; t < static_cast<int64_t>(doc_start.size()); ++t) {
    const int64_t start = doc_start[t];
    const auto refuse = [&](const std::string& rule) {
      Fail(ExitCode::kData, "{}: doc_start[{}] = {}: {}", what, t, start, rule);
    };
    if (start < 0 || start > t) refuse("a document starts between 0 and its tokens");
    if (start % select_block != 0) refuse(fmt::format("documents start at multiples of {}", select_block));
    if (t > 0 && start < doc_start[t - 1])
      refuse(fmt::format("{} comes before it; starts never fall", doc_start[t - 1]));
    if (doc_start[start] != start)
      refuse(fmt::format("position {} belongs to {}, so no document starts there", start, doc_start[start]));
  }
}

}  // namespace longspan

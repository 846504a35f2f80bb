#include "launch/plan/ranks_text.h"

#include <fmt/format.h>

#include "parallel/layout.h"
#include "runtime/count.h"

namespace longspan {
namespace {

constexpr int64_t kAllRows = 16, kFirstRows = 8, kLastRows = 2;  // of more ranks, the first and the last

}  // namespace

std::string RanksText(const RunConfig& config, int64_t dp) {
  const int64_t cp = config.parallel.cp;
  const Layout layout(config.parallel.layout, config.data.sequence_length, static_cast<int>(cp),
                      config.model.nsa.select_block);
  std::string text = fmt::format(
      "Ranks: {} = dp {} x cp {}, {}. A sequence of {} tokens in chunks of {}, {} tokens a rank\n"
      "A step: {}, {} after another on each replica\n\n  rank    dp    cp  tokens\n",
      dp * cp, dp, cp, config.parallel.layout == LayoutKind::kHeadTail ? "HEAD_TAIL" : "CONTIGUOUS", layout.sequence(),
      layout.chunk(), layout.tokens(), Count(config.train.sequences_per_step, "sequence"),
      config.train.sequences_per_step / dp);
  const int64_t ranks = dp * cp;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    if (ranks > kAllRows && rank == kFirstRows) {
      rank = ranks - kLastRows;
      text += fmt::format("   ...  {} more\n", rank - kFirstRows);
    }
    std::string tokens;
    for (const Segment& segment : layout.segments(static_cast<int>(rank % cp))) {
      tokens += fmt::format("{}{}..{}", tokens.empty() ? "" : ", ", segment.begin, segment.begin + segment.length - 1);
    }
    text += fmt::format("{:>6}{:>6}{:>6}  {}\n", rank, rank / cp, rank % cp, tokens);
  }
  return text;
}

}  // namespace longspan

// The verdict on a job that hangs: which operation, which ranks have not arrived in it, and where they are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/job/rank_report.h"

namespace longspan {

// `ranks`: what is known of each; nothing of a rank of which there is no word. Text of several lines, without an end of
// line. Who is to blame, in this order: ranks that are stopped or gone or silent; ranks that called another operation
// than the others under the same number, or with another size or type; ranks that others wait for and that wait for
// none; ranks that wait for each other; nobody, where all have arrived and nothing moves. Unless `all_told`, ranks of
// other nodes had no place to leave word, and are not to blame for that. `nodes`: of each rank, where known; a silent
// one cannot tell its own.
std::string StallVerdict(const std::vector<std::optional<RankReport>>& ranks, const std::string& limit,
                         bool all_told = true, const std::vector<std::string>& nodes = {});

// Which ranks called another operation than the others, or with another size or type, under the number of a call that
// has not ended: lines, each after an end of line; "" where none did.
std::string Disagreement(const std::vector<std::optional<RankReport>>& ranks);

// The verdict on a rank whose process ended while others need it.
std::string LossVerdict(const RankReport& lost);

// "0, 2 to 5"
std::string RanksText(const std::vector<int>& ranks);

}  // namespace longspan

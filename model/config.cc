#include "model/config.h"

#include <cmath>

#include "runtime/problem_list.h"

namespace longspan {
namespace {

// Of a row that is `count` times `width` wide, both of them good sizes.
void CheckWidth(const std::string& count_key, int64_t count, const std::string& width_key, int64_t width,
                ProblemList* problems) {
  if (count * width <= kWidestRow) return;
  problems->Add("{} = {} and {} = {} disagree: their product must be at most {}", count_key, count, width_key, width,
                kWidestRow);
}

void CheckRope(const RopeConfig& rope, const std::string& prefix, ProblemList* problems) {
  problems->Above(prefix + "theta", rope.theta, 1);
  problems->NotNegative(prefix + "attention_factor", rope.attention_factor);
  problems->Size(prefix + "original_max_position", rope.original_max_position);
  problems->Above(prefix + "beta_slow", rope.beta_slow, 0);
  problems->Above(prefix + "beta_fast", rope.beta_fast, 0);
  if (rope.beta_fast <= rope.beta_slow) {
    problems->Add(
        "{0}beta_fast = {1} and {0}beta_slow = {2} disagree: fast must be above slow; the usual values are 32 and 1",
        prefix, rope.beta_fast, rope.beta_slow);
  }
  if (!std::isfinite(rope.factor) || rope.factor < 1) {
    problems->Add("{}factor = {}: must be a finite number, 1 or more; 4 makes sequences four times as long", prefix,
                  rope.factor);
  } else if (rope.scaling == RopeScaling::kNone && rope.factor != 1) {
    problems->Add(
        "{0}factor = {1} and {0}scaling = NONE disagree: only YARN scales; set {0}scaling to YARN or {0}factor to 1",
        prefix, rope.factor);
  }
}

}  // namespace

std::vector<std::string> Problems(const ModelConfig& model, const std::string& prefix) {
  ProblemList problems;
  const bool layers = problems.Size(prefix + "layers", model.layers);
  problems.Size(prefix + "hidden", model.hidden, 1, kWidestRow);
  const bool heads = problems.Size(prefix + "heads", model.heads);
  const bool kv_heads = problems.Size(prefix + "kv_heads", model.kv_heads);
  if (heads && kv_heads && model.heads % model.kv_heads != 0) {
    problems.Add(
        "{0}heads = {1} and {0}kv_heads = {2} disagree: every group has the same number of heads; set {0}heads to {3}",
        prefix, model.heads, model.kv_heads, NearestMultiples(model.heads, model.kv_heads));
  }
  const bool key_width = problems.Size(prefix + "key_width", model.key_width);
  if (key_width && model.key_width % 2 != 0) {
    problems.Add("{}key_width = {}: must be even, RoPE turns pairs of channels; set it to {}", prefix, model.key_width,
                 model.key_width + 1);
  }
  const bool value_width = problems.Size(prefix + "value_width", model.value_width);
  const auto check_widths = [&](const std::string& count_key, int64_t count) {
    if (key_width) CheckWidth(count_key, count, prefix + "key_width", model.key_width, &problems);
    if (value_width) CheckWidth(count_key, count, prefix + "value_width", model.value_width, &problems);
  };
  if (heads) check_widths(prefix + "heads", model.heads);
  problems.Size(prefix + "ffn", model.ffn, 1, kWidestRow);
  problems.Size(prefix + "vocab", model.vocab, 1, kWidestRow);
  problems.Above(prefix + "norm_eps", model.norm_eps, 0);
  const int64_t kinds = static_cast<int64_t>(model.attention.size());
  if (kinds == 0) {
    problems.Add("{}attention = []: names no kind; set it to NSA", prefix);
  } else if (layers && kinds > model.layers) {
    problems.Add(
        "{0}attention = {1} kinds and {0}layers = {2} disagree: the last kinds have no layer; name one for each layer "
        "or fewer",
        prefix, kinds, model.layers);
  }
  CheckRope(model.rope, prefix + "rope.", &problems);
  const std::vector<std::string> nsa = Problems(model.nsa, prefix + "nsa.");
  problems.lines.insert(problems.lines.end(), nsa.begin(), nsa.end());
  if (nsa.empty()) check_widths(prefix + "nsa.block", model.nsa.block);
  return problems.lines;
}

}  // namespace longspan

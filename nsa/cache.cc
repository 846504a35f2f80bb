#include "nsa/cache.h"

#include <algorithm>
#include <limits>

#include "nsa/status.h"
#include "runtime/rounding.h"

namespace longspan {

Cache::Cache(AttentionContext& context, int64_t num_pages)
    : context_(context),
      num_pages_(num_pages),
      kv_({.nsa = context.nsa,
           .own_compression = !context.shared,
           .own_window = !context.shared,
           .groups = context.groups,
           .key_width = context.key_width,
           .value_width = context.value_width,
           .dtype = context.dtype,
           .sequences = context.config.max_batch,
           .pages = num_pages,
           .sequence_pages = context.max_pages(),
           .step = NSA_MAX_NEW_TOKENS}),
      kernels_(context.ops().decode.get(), {.sizes = {context.dtype, context.heads, context.groups, context.key_width,
                                                      context.value_width, context.nsa},
                                            .entries = context.config.max_batch,
                                            .queries = context.config.max_batch * int64_t{NSA_MAX_NEW_TOKENS},
                                            .max_tokens = context.config.max_length}),
      tokens_(context.config.max_batch) {
  static_assert(NSA_MAX_NEW_TOKENS == kMaxDecodeTokens);
  const NsaConfig& nsa = context.nsa;
  if (num_pages < 1 || num_pages > std::numeric_limits<int32_t>::max() / nsa.select_block) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "num_pages: expected 1 to {}, found {}",
           std::numeric_limits<int32_t>::max() / nsa.select_block, num_pages);
  }
  context.weights().RequirePhi();
  const int64_t groups = context.groups, queries = context.config.max_batch * int64_t{NSA_MAX_NEW_TOKENS};
  kv_.Reserve(arena_, "cache");
  const auto output = [&](Tensor* slot, const char* name, DType dtype, const Shape& shape) {
    arena_.Reserve(slot, MemoryUse::kWorkspace, name, dtype, shape);
  };
  kernels_.Reserve(arena_);
  for (int branch : {kCmp, kSlc, kWin}) {
    if (kernels_.serves()) break;
    output(&out_.o[branch], "o", context.dtype, {queries, context.heads, context.value_width});
    output(&out_.lse[branch], "lse", context.gradient_dtype, {queries, context.heads});
  }
  output(&out_.selected, "selected", DType::kI32, {queries, groups, nsa.select});
  output(&gates_, "gates", context.dtype, {queries, context.heads, 3});
  output(&logits_, "logits", context.dtype, {queries * context.heads, 3});
}

void Cache::Start() {
  arena_.Commit(context_.device());
  kv_.Start(context_.device(), *context_.ops().rows, context_.stream());
}

Cache& Cache::Of(const NSACache* cache, const AttentionContext& context) {
  Required(cache, "cache", "an NSACache");
  if (cache->impl == nullptr) Refuse(NSA_ERROR_NOT_INITIALIZED, "cache: expected a cache that nsa_cache_init made");
  Cache& found = *static_cast<Cache*>(cache->impl);
  if (&found.context_ != &context) Refuse(NSA_ERROR_INVALID_ARGUMENT, "cache: expected one of this context");
  return found;
}

// ---- Checks
// ------------------------------------------------------------------------------------------------------------

void Cache::CheckTable(const int32_t* table, int64_t pages, const std::string& name) const {
  if (context_.device().kind() != DeviceKind::kCpu) return;
  for (int64_t i = 0; i < pages; ++i) {
    if (table[i] < 0 || table[i] >= num_pages_) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}[{}]: expected a page in [0,{}), found {}", name, i, num_pages_, table[i]);
    }
  }
}

void Cache::CheckPrefill(const SequenceCall& call, int64_t sequence, const int32_t* page_table) const {
  if (sequence < 0 || sequence >= context_.config.max_batch) {
    Refuse(NSA_ERROR_LENGTH, "sequence: expected one in [0,{}), of max_batch, found {}", context_.config.max_batch,
           sequence);
  }
  Required(page_table, "page_table", "device memory");
  CheckTable(page_table, CeilDiv(call.tokens(), context_.nsa.select_block), "page_table");
}

template <typename Given>
void Cache::ViewTensors(const Given& given, int64_t tokens, Step* step) const {
  context_.weights().RequirePhi();
  if (given.gates == nullptr) context_.weights().has_gates();
  const int64_t heads = context_.heads, groups = context_.groups;
  step->q = context_.View(given.q, "q", {tokens, heads, context_.key_width});
  step->out = context_.View(given.out, "out", {tokens, heads, context_.value_width});
  if (given.gates) step->gates = context_.View(given.gates, "gates", {tokens, heads, 3});
  if (given.selected) {
    step->selected = context_.View(given.selected, "selected", DType::kI32, {tokens, groups, context_.nsa.select});
  }
  constexpr const char* kNames[] = {"k[0]", "k[1]", "k[2]", "v[0]", "v[1]", "v[2]"};
  for (int branch = 0; branch < (context_.shared ? 1 : 3); ++branch) {
    step->k[branch] = context_.View(given.k[branch], kNames[branch], {tokens, groups, context_.key_width});
    step->v[branch] = context_.View(given.v[branch], kNames[3 + branch], {tokens, groups, context_.value_width});
  }
}

Cache::Step Cache::Check(const NSADecodeStep* given) const {
  Required(given, "step", "an NSADecodeStep");
  const NSAConfig& config = context_.config;
  const int64_t page = context_.nsa.select_block;
  if (given->num_sequences < 1) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "num_sequences: expected 1 or more, found {}", given->num_sequences);
  }
  if (given->num_sequences > config.max_batch) {
    Refuse(NSA_ERROR_LENGTH, "num_sequences: expected at most max_batch = {}, found {}", config.max_batch,
           given->num_sequences);
  }
  Required(given->lengths, "lengths", "the tokens of each sequence");
  Required(given->page_table, "page_table", "device memory");
  Step step;
  std::vector<bool> taken(config.max_batch, false);
  int64_t tokens = 0;
  for (int32_t i = 0; i < given->num_sequences; ++i) {
    NewTokens entry{.sequence = given->sequences ? given->sequences[i] : i,
                    .length = given->lengths[i],
                    .count = given->new_tokens ? given->new_tokens[i] : 1,
                    .row = tokens,
                    .table = {}};
    if (entry.sequence < 0 || entry.sequence >= config.max_batch || taken[entry.sequence]) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "sequences[{}]: expected one in [0,{}), each once, found {}", i,
             config.max_batch, entry.sequence);
    }
    taken[entry.sequence] = true;
    if (entry.count < 1 || entry.count > NSA_MAX_NEW_TOKENS) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "new_tokens[{}]: expected 1 to {}, found {}", i, int{NSA_MAX_NEW_TOKENS},
             entry.count);
    }
    const auto [held, written] = tokens_[entry.sequence];
    const int64_t least = written - NSA_MAX_NEW_TOKENS;
    if (counted_ && entry.length != 0 && (entry.length > held || entry.length < least)) {
      Refuse(NSA_ERROR_NOT_INITIALIZED,
             "lengths[{}]: sequence {} holds {} tokens: expected 0 (to begin it) or {} to {}, found {}", i,
             entry.sequence, held, std::max<int64_t>(0, least), held, entry.length);
    }
    if (entry.length + entry.count > config.max_length) {
      Refuse(NSA_ERROR_LENGTH, "lengths[{}]: expected at most max_length = {} tokens with the new ones, found {} + {}",
             i, config.max_length, entry.length, entry.count);
    }
    const int64_t pages = CeilDiv(entry.length + entry.count, page);
    if (pages > given->page_table_width) {
      Refuse(NSA_ERROR_LENGTH, "page_table_width: expected the {} pages of sequence {} or more, found {}", pages,
             entry.sequence, given->page_table_width);
    }
    const int32_t* const row = given->page_table + int64_t{i} * given->page_table_width;
    CheckTable(row, pages, fmt::format("page_table[{}]", i));
    entry.table = Tensor(const_cast<int32_t*>(row), DType::kI32, context_.device().kind(), {pages});
    tokens += entry.count;
    step.entries.push_back(entry);
  }
  step.table = Tensor(const_cast<int32_t*>(given->page_table), DType::kI32, context_.device().kind(),
                      {given->num_sequences, given->page_table_width});
  ViewTensors(*given, tokens, &step);
  return step;
}

Cache::DeviceStep Cache::Check(const NSADeviceStep* given) const {
  Required(given, "step", "an NSADeviceStep");
  if (!kernels_.serves()) {
    Refuse(
        NSA_ERROR_UNSUPPORTED,
        "lengths in device memory take a GPU and sizes that decoding's kernels serve: head_dim and value_dim multiples "
        "of 8 up to 192 and 128, selection_block_size up to 512, found {}, {} and {}",
        context_.key_width, context_.value_width, context_.nsa.select_block);
  }
  const NSAConfig& config = context_.config;
  if (given->num_sequences < 1 || given->new_tokens < 1 || given->new_tokens > NSA_MAX_NEW_TOKENS) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "num_sequences, new_tokens: expected 1 or more, and 1 to {}, found {} and {}",
           int{NSA_MAX_NEW_TOKENS}, given->num_sequences, given->new_tokens);
  }
  if (given->num_sequences > config.max_batch) {
    Refuse(NSA_ERROR_LENGTH, "num_sequences: expected at most max_batch = {}, found {}", config.max_batch,
           given->num_sequences);
  }
  RequireAtLeast("page_table_width", given->page_table_width, 1);
  DeviceStep step;
  step.sequences = given->num_sequences;
  step.count = given->new_tokens;
  step.lengths = context_.View(given->lengths, "lengths", DType::kI32, {step.sequences});
  if (given->sequences) step.numbers = context_.View(given->sequences, "sequences", DType::kI32, {step.sequences});
  step.table = context_.View(given->page_table, "page_table", DType::kI32, {step.sequences, given->page_table_width});
  ViewTensors(*given, step.sequences * step.count, &step);
  return step;
}

// ---- Prefill
// -----------------------------------------------------------------------------------------------------------

void Cache::Prefill(SequenceCall& call, int64_t sequence, const int32_t* page_table, const Tensor& out,
                    const Tensor& selected) {
  call.Forward(out, selected);
  const int64_t tokens = call.tokens();
  NewTokens entry{.sequence = sequence, .length = 0, .count = tokens, .row = 0, .table = {}};
  entry.table = Tensor(const_cast<int32_t*>(page_table), DType::kI32, context_.device().kind(),
                       {CeilDiv(tokens, context_.nsa.select_block)});
  AttentionOps& attention = *context_.ops().attention;
  Stream& stream = context_.stream();
  kv_.Append(attention, stream, entry, kSlc, call.k(kSlc), call.v(kSlc));
  kv_.PutSummaries(attention, stream, entry, call.summary_k(), call.summary_v());
  if (!context_.shared) {
    for (int branch : {kCmp, kWin}) kv_.Append(attention, stream, entry, branch, call.k(branch), call.v(branch));
  }
  Hold(sequence, 0, tokens);
}

void Cache::Hold(int64_t sequence, int64_t length, int64_t count) {
  Tokens& tokens = tokens_[sequence];
  tokens.held = length + count;
  tokens.written = length == 0 ? count : std::max(tokens.written, tokens.held);
}

// ---- A step
// --------------------------------------------------------------------------------------------------------------

void Cache::Attend(const NewTokens& entry, const Step& step) {
  const int64_t tokens = step.q.dim(0);
  Branches branches;
  branches.segments = branches.window_segments = {entry.segment()};
  branches.q = step.q;
  branches.keys = {kv_.Summaries(entry), kv_.Raw(kSlc, entry), kv_.Raw(kWin, entry)};
  for (int branch : {kCmp, kSlc, kWin}) {
    branches.out.o[branch] = out_.o[branch].Rows(0, tokens);
    branches.out.lse[branch] = out_.lse[branch].Rows(0, tokens);
  }
  branches.out.selected = step.selected ? step.selected : out_.selected.Rows(0, tokens);
  branches.nsa = context_.nsa;
  branches.scale = context_.scale;
  branches.Forward(*context_.ops().attention, context_.stream());
}

void Cache::DecodeOneByOne(const Step& step) {
  AttentionOps& attention = *context_.ops().attention;
  const Weights::Phis phis = context_.weights().values();
  for (const NewTokens& entry : step.entries) {
    for (int branch = 0; branch < (context_.shared ? 1 : 3); ++branch) {
      kv_.Append(attention, context_.stream(), entry, branch, step.k[branch], step.v[branch]);
    }
    kv_.Summarize(attention, context_.stream(), entry, phis.k, phis.v, [&](const Tensor& k, int64_t begin) {
      context_.RotateSummaries(k, context_.SummaryPositions(begin, k.dim(0)), false);
    });
    Attend(entry, step);
  }
  const int64_t tokens = step.q.dim(0);
  attention.Combine(context_.stream(), {Gates(step), out_.o[kCmp].Rows(0, tokens), out_.o[kSlc].Rows(0, tokens),
                                        out_.o[kWin].Rows(0, tokens), step.out});
}

Tensor Cache::Gates(const Step& step) {
  if (step.gates) return step.gates;
  const int64_t tokens = step.q.dim(0);
  const Tensor gates = gates_.Rows(0, tokens);
  context_.MakeGates(step.q, logits_.Rows(0, tokens * context_.heads), gates);
  return gates;
}

void Cache::DecodeTogether(const Step& step) {
  std::vector<DecodeKernels::Rows> rows;
  for (int branch = 0; branch < (context_.shared ? 1 : 3); ++branch) {
    rows.push_back({branch, step.k[branch], step.v[branch]});
  }
  kernels_.Append(context_.stream(), kv_, rows);
  const Weights::Phis phis = context_.weights().values();
  kernels_.Attend(context_.stream(), kv_,
                  {.phi_k = phis.k,
                   .phi_v = phis.v,
                   .frequency = context_.frequency(),
                   .scale = context_.scale,
                   .q = step.q,
                   .gates = Gates(step),
                   .selected = step.selected ? step.selected : out_.selected.Rows(0, step.q.dim(0)),
                   .o = step.out});
}

void Cache::Decode(const Step& step) {
  if (kernels_.serves()) {
    kernels_.Begin(context_.stream(), step.entries, step.table, true);
    DecodeTogether(step);
  } else {
    DecodeOneByOne(step);
  }
  for (const NewTokens& entry : step.entries) Hold(entry.sequence, entry.length, entry.count);
}

void Cache::Decode(const DeviceStep& step) {
  counted_ = false;
  kernels_.Begin(context_.stream(), step.sequences, step.count, step.numbers, step.lengths, step.table);
  DecodeTogether(step);
}

}  // namespace longspan

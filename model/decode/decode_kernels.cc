#include "model/decode/decode_kernels.h"

#include <algorithm>
#include <vector>

#include "model/attention/branches.h"

namespace longspan {

// Scratch is for as many queries as there are sequences: more take several passes.
DecodeKernels::DecodeKernels(DecodeOps* ops, const Args& args)
    : ops_(ops != nullptr && ops->Serves(args.sizes) ? ops : nullptr),
      args_(args),
      pass_queries_(std::min(args.queries, std::max(args.entries, kMaxDecodeTokens))) {}

bool DecodeKernels::Serves(std::span<const NewTokens> entries) const {
  return serves() && std::ranges::all_of(entries, [](const NewTokens& x) { return x.count <= kMaxDecodeTokens; });
}

void DecodeKernels::Reserve(Arena& arena) {
  if (!serves()) return;
  const auto reserve = [&](Tensor* slot, const char* name, DType dtype, const Shape& shape) {
    arena.Reserve(slot, MemoryUse::kWorkspace, name, dtype, shape);
  };
  reserve(&entries_, "decode.entries", DType::kI32, {args_.entries, 4});
  reserve(&queries_, "decode.queries", DType::kI32, {args_.queries, 2});
  reserve(&summarize_scratch_, "decode.summarize", DType::kU8,
          {ops_->SummarizeScratch(args_.sizes, args_.entries, kMaxDecodeTokens)});
  reserve(&attend_scratch_, "decode.attend", DType::kU8,
          {ops_->AttendScratch(args_.sizes, pass_queries_, args_.max_tokens)});
}

void DecodeKernels::Begin(Stream& stream, std::span<const NewTokens> entries, const Tensor& table,
                          bool table_by_entry) {
  std::vector<DecodeEntry> given;
  const auto narrow = [](int64_t x) { return static_cast<int32_t>(x); };
  int64_t tokens = 0;
  segments_.clear();
  step_ = {.table = table, .table_by_entry = table_by_entry, .max_tokens = args_.max_tokens, .segments = &segments_};
  for (const NewTokens& entry : entries) {
    given.push_back({narrow(entry.sequence), narrow(entry.length), narrow(entry.count), narrow(entry.row)});
    segments_.push_back(entry.segment());
    tokens += entry.count;
    step_.max_count = std::max(step_.max_count, entry.count);
  }
  step_.entries = entries_.Rows(0, std::ssize(given));
  step_.queries = queries_.Rows(0, tokens);
  ops_->Begin(stream, step_, given);
}

void DecodeKernels::Begin(Stream& stream, int64_t entries, int64_t count, const Tensor& sequences,
                          const Tensor& lengths, const Tensor& table) {
  step_ = {.entries = entries_.Rows(0, entries),
           .queries = queries_.Rows(0, entries * count),
           .table = table,
           .table_by_entry = true,
           .max_count = count,
           .max_tokens = args_.max_tokens};
  ops_->Begin(stream, step_, sequences, lengths, count);
}

void DecodeKernels::Append(Stream& stream, const KvCache& cache, std::span<const Rows> rows) {
  std::vector<DecodeAppendArgs::Branch> branches;
  for (const Rows& x : rows) branches.push_back({x.k, x.v, cache.RawRows(x.branch)});
  ops_->Append(stream, {step_, args_.sizes.nsa.select_block, branches});
}

void DecodeKernels::Attend(Stream& stream, const KvCache& cache, const Attention& attention) {
  ops_->Summarize(stream, {.step = step_,
                           .sizes = args_.sizes,
                           .from = cache.RawRows(kCmp),
                           .to = cache.SummaryRows(),
                           .phi_k = attention.phi_k,
                           .phi_v = attention.phi_v,
                           .frequency = attention.frequency,
                           .factor = attention.factor,
                           .scratch = summarize_scratch_});
  ops_->Attend(stream, {.step = step_,
                        .sizes = args_.sizes,
                        .scale = attention.scale,
                        .summaries = cache.SummaryRows(),
                        .selected_rows = cache.RawRows(kSlc),
                        .window_rows = cache.RawRows(kWin),
                        .q = attention.q,
                        .gates = attention.gates,
                        .selected = attention.selected,
                        .o = attention.o,
                        .pass_queries = pass_queries_,
                        .scratch = attend_scratch_});
}

}  // namespace longspan

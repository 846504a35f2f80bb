#include "nsa/cache.h"

#include <algorithm>
#include <limits>

#include "kernels/host_copy.h"
#include "nsa/status.h"
#include "runtime/rounding.h"

namespace longspan {

Cache::Cache(Context& context, int64_t num_pages)
    : context_(context), num_pages_(num_pages), tokens_(context.config.max_batch) {
  const NsaConfig& nsa = context.nsa;
  if (num_pages < 1 || num_pages > std::numeric_limits<int32_t>::max() / nsa.select_block) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "num_pages: expected 1 to {}, found {}",
           std::numeric_limits<int32_t>::max() / nsa.select_block, num_pages);
  }
  context.weights().RequirePhi();
  const int64_t groups = context.groups, queries = context.config.max_batch * int64_t{NSA_MAX_NEW_TOKENS};
  const auto reserve = [&](const char* name, int64_t rows, Store* store) {
    arena_.Reserve(&store->k, MemoryUse::kActivations, std::string(name) + ".k", context.dtype,
                   {rows, groups, context.key_width});
    arena_.Reserve(&store->v, MemoryUse::kActivations, std::string(name) + ".v", context.dtype,
                   {rows, groups, context.value_width});
  };
  reserve("pages", num_pages * nsa.select_block, &pages_);
  reserve("summaries", num_pages * (nsa.select_block / nsa.stride), &summaries_);
  reserve("new summaries", NSA_MAX_NEW_TOKENS / nsa.stride + 1, &new_summaries_);
  if (!context.shared) {
    ReserveRing("compression", nsa.block - 1, &cmp_ring_);
    ReserveRing("window", nsa.window - 1, &win_ring_);
  }
  const auto output = [&](Tensor* slot, const char* name, DType dtype, const Shape& shape) {
    arena_.Reserve(slot, MemoryUse::kWorkspace, name, dtype, shape);
  };
  for (int branch : {kCmp, kSlc, kWin}) {
    output(&out_.o[branch], "o", context.dtype, {queries, context.heads, context.value_width});
    output(&out_.lse[branch], "lse", context.gradient_dtype, {queries, context.heads});
  }
  output(&out_.selected, "selected", DType::kI32, {queries, groups, nsa.select});
  output(&gates_, "gates", context.dtype, {queries, context.heads, 3});
  output(&logits_, "logits", context.dtype, {queries * context.heads, 3});
}

// For `tokens` before a step's and the step's own. What was written last and then taken back is behind both.
void Cache::ReserveRing(const char* name, int64_t tokens, Ring* ring) {
  const int64_t page = context_.nsa.select_block;
  // The first and the last of the pages may hold one of those tokens alone; nor do NSA_MAX_NEW_TOKENS that were taken
  // back reach around to the first.
  ring->pages = std::min(CeilDiv(tokens + NSA_MAX_NEW_TOKENS - 1, page) + 1, context_.max_pages());
  const int64_t rows = context_.config.max_batch * slot_rows(*ring);
  arena_.Reserve(&ring->table, MemoryUse::kWorkspace, std::string(name) + ".table", DType::kI32,
                 {context_.max_pages()});
  arena_.Reserve(&ring->rows.k, MemoryUse::kActivations, std::string(name) + ".k", context_.dtype,
                 {rows, context_.groups, context_.key_width});
  arena_.Reserve(&ring->rows.v, MemoryUse::kActivations, std::string(name) + ".v", context_.dtype,
                 {rows, context_.groups, context_.value_width});
}

void Cache::Start() {
  try {
    arena_.Commit(context_.device());
  } catch (const Error& error) {
    throw StatusError(NSA_ERROR_OUT_OF_MEMORY, error.what());
  }
  // What was never written is read beside what was, and weighs nothing: it must be finite.
  for (const Store* store : {&pages_, &summaries_, &cmp_ring_.rows, &win_ring_.rows}) {
    for (const Tensor& x : {store->k, store->v}) {
      if (x) context_.ops().rows->Zero(context_.stream(), x);
    }
  }
  for (const Ring* ring : {&cmp_ring_, &win_ring_}) {
    if (ring->pages == 0) continue;
    std::vector<int32_t> table(ring->table.size());
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i % ring->pages);
    HostCopy(context_.device(), context_.stream(), HostView(table.data(), ring->table.shape), ring->table);
  }
}

Cache& Cache::Of(const NSACache* cache, const Context& context) {
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
    Entry entry{.sequence = given->sequences ? given->sequences[i] : i,
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
    if (entry.length != 0 && (entry.length > held || entry.length < least)) {
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
  context_.weights().RequirePhi();
  if (given->gates == nullptr) context_.weights().has_gates();
  const int64_t heads = context_.heads, groups = context_.groups;
  step.q = context_.View(given->q, "q", {tokens, heads, context_.key_width});
  step.out = context_.View(given->out, "out", {tokens, heads, context_.value_width});
  if (given->gates) step.gates = context_.View(given->gates, "gates", {tokens, heads, 3});
  if (given->selected) {
    step.selected = context_.View(given->selected, "selected", DType::kI32, {tokens, groups, context_.nsa.select});
  }
  constexpr const char* kNames[] = {"k[0]", "k[1]", "k[2]", "v[0]", "v[1]", "v[2]"};
  for (int branch = 0; branch < (context_.shared ? 1 : 3); ++branch) {
    step.k[branch] = context_.View(given->k[branch], kNames[branch], {tokens, groups, context_.key_width});
    step.v[branch] = context_.View(given->v[branch], kNames[3 + branch], {tokens, groups, context_.value_width});
  }
  return step;
}

// ---- Where a sequence's rows lie
// -----------------------------------------------------------------------------------------

KeysValues Cache::PagesOf(const Entry& entry) const {
  return {pages_.k, pages_.v, {entry.table, context_.nsa.select_block}};
}

KeysValues Cache::SummariesOf(const Entry& entry) const {
  return {summaries_.k, summaries_.v, {entry.table, context_.nsa.select_block / context_.nsa.stride}};
}

KeysValues Cache::RingOf(const Ring& ring, const Entry& entry) const {
  const int64_t first = entry.sequence * slot_rows(ring), rows = slot_rows(ring);
  return {ring.rows.k.Rows(first, rows),
          ring.rows.v.Rows(first, rows),
          {ring.table.Rows(0, entry.table.size()), context_.nsa.select_block}};
}

KeysValues Cache::RawOf(int branch, const Entry& entry) const {
  if (context_.shared || branch == kSlc) return PagesOf(entry);
  return RingOf(branch == kCmp ? cmp_ring_ : win_ring_, entry);
}

void Cache::Put(const Segment& segment, const Tensor& k, const Tensor& v, const KeysValues& to) {
  AttentionOps& attention = *context_.ops().attention;
  attention.Store(context_.stream(), {{segment}, k, to.k, to.pages});
  attention.Store(context_.stream(), {{segment}, v, to.v, to.pages});
}

// ---- Prefill
// -----------------------------------------------------------------------------------------------------------

void Cache::Prefill(SequenceCall& call, int64_t sequence, const int32_t* page_table, const Tensor& out,
                    const Tensor& selected) {
  call.Forward(out, selected);
  const int64_t tokens = call.tokens();
  Entry entry{.sequence = sequence, .length = 0, .count = tokens, .row = 0, .table = {}};
  entry.table = Tensor(const_cast<int32_t*>(page_table), DType::kI32, context_.device().kind(),
                       {CeilDiv(tokens, context_.nsa.select_block)});
  Put({0, tokens, 0}, call.k(kSlc), call.v(kSlc), PagesOf(entry));
  Put({0, call.summary_k().dim(0), 0}, call.summary_k(), call.summary_v(), SummariesOf(entry));
  if (!context_.shared) {
    for (int branch : {kCmp, kWin}) {
      // The last that the ring holds.
      const int64_t count = std::min(tokens, slot_rows(branch == kCmp ? cmp_ring_ : win_ring_)), first = tokens - count;
      Put({first, count, first}, call.k(branch), call.v(branch), RawOf(branch, entry));
    }
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

void Cache::AppendRows(const Entry& entry, const Step& step) {
  const Segment segment = {entry.length, entry.count, entry.row};
  for (int branch = 0; branch < (context_.shared ? 1 : 3); ++branch) {
    Put(segment, step.k[branch], step.v[branch], RawOf(branch, entry));
  }
}

// The compressed tokens that end in the new tokens.
void Cache::Summarize(const Entry& entry) {
  const NsaConfig& nsa = context_.nsa;
  const int64_t begin = entry.length / nsa.stride, rows = (entry.length + entry.count) / nsa.stride - begin;
  if (rows == 0) return;
  const KeysValues raw = RawOf(kCmp, entry);
  const Weights::Phis phis = context_.weights().values();
  const Tensor k = new_summaries_.k.Rows(0, rows), v = new_summaries_.v.Rows(0, rows);
  for (bool keys : {true, false}) {
    context_.ops().attention->Compress(context_.stream(), {.segments = {{begin * nsa.stride, rows * nsa.stride, 0}},
                                                           .x = keys ? raw.k : raw.v,
                                                           .pages = raw.pages,
                                                           .phi = nsa.phi,
                                                           .block = nsa.block,
                                                           .stride = nsa.stride,
                                                           .weights = keys ? phis.k : phis.v,
                                                           .y = keys ? k : v});
  }
  context_.RotateSummaries(k, context_.SummaryPositions(begin, rows), false);
  Put({begin, rows, 0}, k, v, SummariesOf(entry));
}

void Cache::Attend(const Entry& entry, const Step& step) {
  const int64_t tokens = step.q.dim(0);
  Branches branches;
  branches.segments = branches.window_segments = {{entry.length, entry.count, entry.row}};
  branches.q = step.q;
  branches.keys = {SummariesOf(entry), PagesOf(entry), RawOf(kWin, entry)};
  for (int branch : {kCmp, kSlc, kWin}) {
    branches.out.o[branch] = out_.o[branch].Rows(0, tokens);
    branches.out.lse[branch] = out_.lse[branch].Rows(0, tokens);
  }
  branches.out.selected = step.selected ? step.selected : out_.selected.Rows(0, tokens);
  branches.nsa = context_.nsa;
  branches.scale = context_.scale;
  branches.Forward(*context_.ops().attention, context_.stream());
}

void Cache::Decode(const Step& step) {
  for (const Entry& entry : step.entries) {
    AppendRows(entry, step);
    Summarize(entry);
    Attend(entry, step);
    Hold(entry.sequence, entry.length, entry.count);
  }
  const int64_t tokens = step.q.dim(0);
  const Tensor gates = step.gates ? step.gates : gates_.Rows(0, tokens);
  if (!step.gates) context_.MakeGates(step.q, logits_.Rows(0, tokens * context_.heads), gates);
  context_.ops().attention->Combine(
      context_.stream(),
      {gates, out_.o[kCmp].Rows(0, tokens), out_.o[kSlc].Rows(0, tokens), out_.o[kWin].Rows(0, tokens), step.out});
}

}  // namespace longspan

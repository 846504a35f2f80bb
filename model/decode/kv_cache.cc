#include "model/decode/kv_cache.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/host_copy.h"
#include "model/attention/branches.h"
#include "runtime/rounding.h"

namespace longspan {

KvCache::KvCache(const Args& args) : args_(args) {}

void KvCache::ReserveStore(Arena& arena, const std::string& name, int64_t rows, Store* store) {
  arena.Reserve(&store->k, MemoryUse::kActivations, name + ".k", args_.dtype, {rows, args_.groups, args_.key_width});
  arena.Reserve(&store->v, MemoryUse::kActivations, name + ".v", args_.dtype, {rows, args_.groups, args_.value_width});
}

// For `tokens` before a step's and the step's own. What was written last and then taken back is behind both.
void KvCache::ReserveRing(Arena& arena, const std::string& name, int64_t tokens, Ring* ring) {
  const int64_t page = args_.nsa.select_block;
  // The first and the last of the pages may hold one of those tokens alone; nor do `step` that were taken back reach
  // around to the first.
  ring->pages = std::min(CeilDiv(tokens + args_.step - 1, page) + 1, args_.sequence_pages);
  arena.Reserve(&ring->table, MemoryUse::kWorkspace, name + ".table", DType::kI32, {args_.sequence_pages});
  ReserveStore(arena, name, args_.sequences * slot_rows(*ring), &ring->rows);
}

void KvCache::Reserve(Arena& arena, const std::string& name) {
  const NsaConfig& nsa = args_.nsa;
  const bool sparse = args_.kind == AttentionKind::kNsa;
  if (args_.kind != AttentionKind::kWindow) {
    ReserveStore(arena, name + ".pages", args_.pages * nsa.select_block, &pages_);
  }
  if (sparse) {
    ReserveStore(arena, name + ".summaries", args_.pages * (nsa.select_block / nsa.stride), &summaries_);
    ReserveStore(arena, name + ".new_summaries", args_.step / nsa.stride + 1, &new_summaries_);
    if (args_.own_compression) ReserveRing(arena, name + ".compression", nsa.block - 1, &cmp_ring_);
  }
  if (args_.kind == AttentionKind::kWindow || (sparse && args_.own_window)) {
    ReserveRing(arena, name + ".window", nsa.window - 1, &win_ring_);
  }
}

void KvCache::Start(Device& device, RowOps& rows, Stream& stream) {
  // What was never written is read beside what was, and weighs nothing: it must be finite.
  for (const Store* store : {&pages_, &summaries_, &cmp_ring_.rows, &win_ring_.rows}) {
    for (const Tensor& x : {store->k, store->v}) {
      if (x) rows.Zero(stream, x);
    }
  }
  for (const Ring* ring : {&cmp_ring_, &win_ring_}) {
    if (ring->pages == 0) continue;
    std::vector<int32_t> table(ring->table.size());
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i % ring->pages);
    HostCopy(device, stream, HostView(table.data(), ring->table.shape), ring->table);
  }
}

const KvCache::Ring* KvCache::RingOf(int branch) const {
  if (args_.kind == AttentionKind::kFull) return nullptr;
  if (args_.kind == AttentionKind::kWindow) return &win_ring_;
  const Ring& ring = branch == kCmp ? cmp_ring_ : win_ring_;
  return branch == kSlc || ring.pages == 0 ? nullptr : &ring;
}

KeysValues KvCache::Raw(int branch, const NewTokens& tokens) const {
  const int64_t page = args_.nsa.select_block;
  const Ring* const ring = RingOf(branch);
  if (!ring) return {pages_.k, pages_.v, {tokens.table, page * tokens.page_blocks}};
  const int64_t rows = slot_rows(*ring), first = tokens.sequence * rows;
  const int64_t used = CeilDiv(tokens.length + tokens.count, page);
  return {ring->rows.k.Rows(first, rows), ring->rows.v.Rows(first, rows), {ring->table.Rows(0, used), page}};
}

KeysValues KvCache::Summaries(const NewTokens& tokens) const {
  return {summaries_.k, summaries_.v, {tokens.table, tokens.page_blocks * (args_.nsa.select_block / args_.nsa.stride)}};
}

DecodeRows KvCache::RawRows(int branch) const {
  const Ring* const ring = RingOf(branch);
  return ring ? DecodeRows{ring->rows.k, ring->rows.v, ring->pages} : DecodeRows{pages_.k, pages_.v, 0};
}

int64_t KvCache::held(int branch) const {
  const Ring* const ring = RingOf(branch);
  return ring ? slot_rows(*ring) : std::numeric_limits<int64_t>::max();
}

void KvCache::Put(AttentionOps& ops, Stream& stream, const Segment& segment, const Tensor& k, const Tensor& v,
                  const KeysValues& to) {
  ops.Store(stream, {{segment}, k, to.k, to.pages});
  ops.Store(stream, {{segment}, v, to.v, to.pages});
}

void KvCache::Append(AttentionOps& ops, Stream& stream, const NewTokens& tokens, int branch, const Tensor& k,
                     const Tensor& v) {
  // Of many more than the ring holds, the last.
  const int64_t count = std::min(tokens.count, held(branch)), skipped = tokens.count - count;
  Put(ops, stream, {tokens.length + skipped, count, tokens.row + skipped}, k, v, Raw(branch, tokens));
}

void KvCache::PutSummaries(AttentionOps& ops, Stream& stream, const NewTokens& tokens, const Tensor& k,
                           const Tensor& v) {
  Put(ops, stream, {0, k.dim(0), 0}, k, v, Summaries(tokens));
}

void KvCache::Summarize(AttentionOps& ops, Stream& stream, const NewTokens& tokens, const PhiWeights& phi_k,
                        const PhiWeights& phi_v, const Rotate& rotate) {
  const NsaConfig& nsa = args_.nsa;
  const int64_t begin = tokens.length / nsa.stride, rows = (tokens.length + tokens.count) / nsa.stride - begin;
  if (rows == 0) return;
  const KeysValues raw = Raw(kCmp, tokens);
  const Tensor k = new_summaries_.k.Rows(0, rows), v = new_summaries_.v.Rows(0, rows);
  for (bool keys : {true, false}) {
    ops.Compress(stream, {.segments = {{begin * nsa.stride, rows * nsa.stride, 0}},
                          .x = keys ? raw.k : raw.v,
                          .pages = raw.pages,
                          .phi = nsa.phi,
                          .block = nsa.block,
                          .stride = nsa.stride,
                          .weights = keys ? phi_k : phi_v,
                          .y = keys ? k : v});
  }
  rotate(k, begin);
  Put(ops, stream, {begin, rows, 0}, k, v, Summaries(tokens));
}

}  // namespace longspan

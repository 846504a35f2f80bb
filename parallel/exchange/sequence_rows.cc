#include "parallel/exchange/sequence_rows.h"

#include <algorithm>
#include <vector>

#include "kernels/host_copy.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

// Calls move(first row of the whole, first row of the part, rows) for each segment of a rank, without padding.
template <typename Move>
void ForRows(const SequenceRows& all, int rank, const Move& move) {
  for (const Segment& segment : all.layout.segments(rank)) {
    const int64_t rows = std::min(segment.length, all.length - segment.begin);
    if (rows > 0) move(segment.begin, segment.row, rows);
  }
}

}  // namespace

void SequenceRows::Scatter(const Tensor& whole, const Tensor& part, uint8_t padding) const {
  device.FillBytes(compute, part, padding);
  ForRows(*this, cp.rank(), [&](int64_t begin, int64_t row, int64_t rows) {
    HostCopy(device, compute, whole.Rows(begin, rows), part.Rows(row, rows));
  });
  compute.Synchronize();
}

void SequenceRows::Gather(const Tensor& part, const Tensor& whole) const {
  compute.Synchronize();
  const bool root = cp.rank() == 0;
  Shape all = part.shape;
  all[0] = root ? layout.sequence() : 0;
  const Buffer memory(device, root ? part.bytes() * cp.size() : 0, "a result of all ranks");
  const Tensor receive(memory.data(), part.dtype, device.kind(), all);
  std::vector<int64_t> send_counts(cp.size(), 0);
  send_counts[0] = part.size();
  cp.AllToAll(comm, part, send_counts, receive, std::vector<int64_t>(cp.size(), root ? part.size() : 0));
  comm.Synchronize();

  if (!root) return;
  for (int rank = 0; rank < cp.size(); ++rank) {
    ForRows(*this, rank, [&](int64_t begin, int64_t row, int64_t rows) {
      HostCopy(device, compute, receive.Rows(rank * layout.tokens() + row, rows), whole.Rows(begin, rows));
    });
  }
}

}  // namespace longspan

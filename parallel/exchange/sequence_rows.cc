#include "parallel/exchange/sequence_rows.h"

#include <vector>

#include "kernels/host_copy.h"
#include "runtime/memory.h"

namespace longspan {

void SequenceRows::Scatter(const Tensor& whole, const Tensor& part, uint8_t padding) const {
  context_.device.FillBytes(context_.compute, part, padding);
  ForRows(context_.cp.rank(), [&](int64_t begin, int64_t row, int64_t rows) {
    HostCopy(context_.device, context_.compute, whole.Rows(begin, rows), part.Rows(row, rows));
  });
  context_.compute.Synchronize();
}

void SequenceRows::Gather(const Tensor& part, DType dtype, const Tensor& whole) const {
  Device& device = context_.device;
  Stream& compute = context_.compute;
  Communicator& cp = context_.cp;
  const Layout& layout = context_.layout;
  const bool root = cp.rank() == 0;
  Buffer cast_memory;
  Tensor send = part;
  if (part.dtype != dtype) {
    cast_memory = Buffer(device, part.size() * DTypeSize(dtype), "a result in the type of the case");
    send = Tensor(cast_memory.data(), dtype, device.kind(), part.shape);
    context_.ops.rows->Copy(compute, part, send);
  }
  compute.Synchronize();

  Shape all = part.shape;
  all[0] = root ? layout.sequence() : 0;
  const Buffer memory(device, root ? send.bytes() * cp.size() : 0, "a result of all ranks");
  const Tensor receive(memory.data(), dtype, device.kind(), all);
  std::vector<int64_t> send_counts(cp.size(), 0);
  send_counts[0] = send.size();
  cp.AllToAll(context_.comm, send, send_counts, receive, std::vector<int64_t>(cp.size(), root ? send.size() : 0));
  context_.comm.Synchronize();

  if (!root) return;
  for (int rank = 0; rank < cp.size(); ++rank) {
    ForRows(rank, [&](int64_t begin, int64_t row, int64_t rows) {
      device.Copy(compute, whole.Rows(begin, rows), receive.Rows(rank * layout.tokens() + row, rows));
    });
  }
  compute.Synchronize();
}

}  // namespace longspan

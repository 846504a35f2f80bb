// Exchanges: how a rank gets the key/value rows that other ranks hold, and gives their gradients back.
//
// An exchange owns a buffer geometry: `rows()` rows of [G,W], this rank's own T rows from `own_row()` on, borrowed rows
// in the others, and a page table from sequence to buffer. The caller owns the buffers (one for k, one for v) and
// writes its own rows. Forward fills the borrowed rows. Backward takes gradient buffers of the same geometry, in which
// the kernels have accumulated into own and borrowed rows alike, and ADDS every borrowed row's gradient to the own row
// of its owner, in the order of ranks. (Slicing the gathered gradient instead is the known trap: DESIGN.md section 3.)
//
// All calls are collective over the cp group and run on the given (communication) stream.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/dense/ops.h"
#include "kernels/rows/ops.h"
#include "parallel/comm/comm.h"
#include "parallel/layout.h"
#include "runtime/memory.h"

namespace longspan {

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual int64_t rows() const = 0;        // R of the buffers
  virtual int64_t own_row() const = 0;     // first of this rank's own rows
  virtual const Pages& pages() const = 0;  // valid on the device once the arena is committed and Start was called
  // Reserves the table and staging memory; `name` prefixes the entries. `shapes` are the [G,W] of the tensors that
  // travel together.
  virtual void Reserve(Arena& arena, const std::string& name, DType dtype, DType gradient_dtype,
                       const std::vector<Shape>& shapes) = 0;
  virtual void Start(Device& device, Stream& stream) = 0;  // uploads the tables; once, after Commit
  virtual void Forward(Stream& stream, const std::vector<Tensor>& buffers) = 0;
  virtual void Backward(Stream& stream, const std::vector<Tensor>& gradients) = 0;
  virtual int64_t borrowed_bytes() const = 0;  // received by the last Forward
};

// Where a halo exchange has its rows, when its buffer is another exchange's with more rows behind: multiples of
// layout.unit() where there are several ranks.
struct HaloPlace {
  int64_t own_row = 0;
  int64_t borrowed_row = -1;  // -1: behind the own rows
};
// The `halo` tokens before each segment (fewer at the sequence's start), whoever holds them: neighbours, or several
// ranks when chunks are shorter. Pages of layout.unit() tokens; a page that is only partly needed is only partly
// filled.
std::unique_ptr<Exchange> MakeHaloExchange(const Layout& layout, Communicator& cp, DenseOps& dense, int64_t halo,
                                           const HaloPlace& place = {});

// All rows of all ranks. `stride` tokens make one row (1 for tokens, d for summaries); pages of `page_tokens` tokens.
std::unique_ptr<Exchange> MakeGatherExchange(const Layout& layout, Communicator& cp, int64_t stride,
                                             int64_t page_tokens);

// Only the blocks that some local query selected, or all. Its Forward needs the selection of that forward pass: see
// Choose.
class FetchExchange : public Exchange {
 public:
  // From now on all rows travel, as a gather exchange's, and nothing is chosen; or only the chosen again, from the next
  // Choose on. After Start, when no pass is under way: between a Forward and its Backward all stays as it is. Waits for
  // `stream`.
  virtual void GatherAll(Stream& stream, bool all) = 0;
  // Reads selected [T,G,N] I32 (synchronises `stream`), agrees on who sends what, updates the table. Holds for every
  // Forward and Backward until the next Choose. Collective.
  virtual void Choose(Stream& stream, const Tensor& selected) = 0;
  virtual double coverage() const = 0;  // fetched blocks / blocks held by others
};
std::unique_ptr<FetchExchange> MakeFetchExchange(const Layout& layout, Communicator& cp, RowOps& row_ops);

}  // namespace longspan

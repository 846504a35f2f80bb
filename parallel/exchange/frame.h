// ExchangeFrame: what every exchange has, its page table and what the tensors look like that travel together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/pages.h"
#include "parallel/comm/comm.h"
#include "parallel/layout.h"
#include "runtime/memory.h"

namespace longspan {

class ExchangeFrame {
 public:
  // A table for a buffer of `rows` rows; `name` begins the text of errors.
  ExchangeFrame(std::string name, int64_t rows, int64_t page_rows, std::vector<int32_t> table);

  void Reserve(Arena& arena, const std::string& prefix, DType dtype, DType gradient_dtype,
               const std::vector<Shape>& shapes);
  void Upload(Device& device, Stream& stream);  // table() to pages(); table() stays as it is until that ran
  // Throws Error unless the tensors are those reserved, [rows,G,W], in the dtype of data or of gradients.
  void CheckBuffers(const std::vector<Tensor>& buffers) const { Check(buffers, dtype_); }
  void CheckGradients(const std::vector<Tensor>& gradients) const { Check(gradients, gradient_dtype_); }

  int64_t rows() const { return rows_; }
  const Pages& pages() const { return pages_; }
  std::vector<int32_t>& table() { return table_; }
  int64_t row_bytes() const;                                    // of one row of all tensors
  const std::vector<Shape>& shapes() const { return shapes_; }  // [G,W] of each tensor

 private:
  void Check(const std::vector<Tensor>& tensors, DType dtype) const;

  std::string name_;
  int64_t rows_;
  Pages pages_;
  std::vector<int32_t> table_;
  DType dtype_ = DType::kF32;
  DType gradient_dtype_ = DType::kF32;
  std::vector<Shape> shapes_;
};

// Throws Error unless the layout cuts the sequence over exactly this group.
void CheckGroup(const char* name, const Layout& layout, const Communicator& cp);

// The table of a buffer that begins with this rank's own rows and holds nothing else yet; pages of layout.unit()
// tokens.
std::vector<int32_t> OwnPages(const Layout& layout, int rank);

}  // namespace longspan

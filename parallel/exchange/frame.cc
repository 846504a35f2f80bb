#include "parallel/exchange/frame.h"

#include <utility>

#include "runtime/rounding.h"

namespace longspan {

ExchangeFrame::ExchangeFrame(std::string name, int64_t rows, int64_t page_rows, std::vector<int32_t> table)
    : name_(std::move(name)), rows_(rows), table_(std::move(table)) {
  pages_.page_rows = page_rows;
}

void ExchangeFrame::Reserve(Arena& arena, const std::string& prefix, DType dtype, DType gradient_dtype,
                            const std::vector<Shape>& shapes) {
  LS_CHECK(shapes_.empty() && !shapes.empty(), "{}: memory is reserved once, for one tensor at least", name_);
  for (const Shape& shape : shapes) {
    LS_CHECK(shape.rank() == 2, "{}: expected shapes [G,W], found {}", name_, shape.ToString());
  }
  dtype_ = dtype;
  gradient_dtype_ = gradient_dtype;
  shapes_ = shapes;
  arena.Reserve(&pages_.table, MemoryUse::kWorkspace, prefix + ".pages", DType::kI32,
                {static_cast<int64_t>(table_.size())});
}

void ExchangeFrame::Upload(Device& device, Stream& stream) {
  device.Copy(stream, pages_.table, HostView(table_.data(), pages_.table.shape));
}

int64_t ExchangeFrame::row_bytes() const {
  int64_t elements = 0;
  for (const Shape& shape : shapes_) elements += shape.count();
  return elements * DTypeSize(dtype_);
}

void ExchangeFrame::Check(const std::vector<Tensor>& tensors, DType dtype) const {
  LS_CHECK(pages_.table, "{}: used before its memory was committed", name_);
  LS_CHECK(tensors.size() == shapes_.size(), "{}: expected {} tensors, found {}", name_, shapes_.size(),
           tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& x = tensors[i];
    const Shape expected = {rows_, shapes_[i][0], shapes_[i][1]};
    LS_CHECK(x && x.shape == expected && x.dtype == dtype && x.contiguous(),
             "{}: tensor {} must be {} {}, contiguous; found {} {}", name_, i, DTypeName(dtype), expected.ToString(),
             DTypeName(x.dtype), x.shape.ToString());
  }
}

void CheckGroup(const char* name, const Layout& layout, const Communicator& cp) {
  LS_CHECK(cp.size() == layout.ranks(), "{}: the layout is for {} ranks, the group has {}", name, layout.ranks(),
           cp.size());
}

std::vector<int32_t> OwnPages(const Layout& layout, int rank) {
  const int64_t unit = layout.unit();
  std::vector<int32_t> table(CeilDiv(layout.sequence(), unit), -1);
  for (size_t page = 0; page < table.size(); ++page) {
    const Layout::Place place = layout.Find(static_cast<int64_t>(page) * unit);
    if (place.rank == rank) table[page] = static_cast<int32_t>(place.row / unit);
  }
  return table;
}

}  // namespace longspan

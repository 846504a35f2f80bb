// GATHER: every rank gets all rows of all ranks. The buffer is what an all-gather makes of them, each rank's T/stride
// rows after the previous rank's; nothing is permuted, the page table says where a page lies.
#include <memory>
#include <string>
#include <vector>

#include "parallel/exchange/exchange.h"
#include "parallel/exchange/frame.h"

namespace longspan {
namespace {

class GatherExchange final : public Exchange {
 public:
  GatherExchange(const Layout& layout, Communicator& cp, int64_t stride, int64_t page_tokens)
      : cp_(cp),
        own_rows_(layout.tokens() / stride),
        frame_("gather exchange", own_rows_ * layout.ranks(), page_tokens / stride, layout.GatheredPages(page_tokens)) {
  }

  int64_t rows() const override { return frame_.rows(); }
  int64_t own_row() const override { return cp_.rank() * own_rows_; }
  const Pages& pages() const override { return frame_.pages(); }
  int64_t borrowed_bytes() const override { return borrowed_bytes_; }

  void Reserve(Arena& arena, const std::string& name, DType dtype, DType gradient_dtype,
               const std::vector<Shape>& shapes) override {
    frame_.Reserve(arena, name, dtype, gradient_dtype, shapes);
  }
  void Start(Device& device, Stream& stream) override { frame_.Upload(device, stream); }

  void Forward(Stream& stream, const std::vector<Tensor>& buffers) override {
    frame_.CheckBuffers(buffers);
    borrowed_bytes_ = (rows() - own_rows_) * frame_.row_bytes();
    if (cp_.size() == 1) return;
    for (const Tensor& buffer : buffers) cp_.AllGather(stream, Own(buffer), buffer);
  }

  // The own rows get the sum over all ranks, this one included.
  void Backward(Stream& stream, const std::vector<Tensor>& gradients) override {
    frame_.CheckGradients(gradients);
    if (cp_.size() == 1) return;
    for (const Tensor& gradient : gradients) cp_.ReduceScatter(stream, gradient, Own(gradient));
  }

 private:
  Tensor Own(const Tensor& x) const { return x.Rows(own_row(), own_rows_); }

  Communicator& cp_;
  int64_t own_rows_;
  ExchangeFrame frame_;
  int64_t borrowed_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Exchange> MakeGatherExchange(const Layout& layout, Communicator& cp, int64_t stride,
                                             int64_t page_tokens) {
  CheckGroup("gather exchange", layout, cp);
  LS_CHECK(stride >= 1 && page_tokens % stride == 0, "gather exchange: pages of {} tokens, rows of {}", page_tokens,
           stride);
  return std::make_unique<GatherExchange>(layout, cp, stride, page_tokens);
}

}  // namespace longspan

// FETCH: only the blocks that some local query selected. The buffer begins with the own rows; behind them come the
// fetched blocks by owner, in the owner's order, so that each owner's message lands where it stays. Planned for the
// worst case, every block of everybody: S rows.
//
// Gradients that come back are added in the order of ranks, the own among them, as GATHER's reduce-scatter adds: where
// both add in that order (MPI), the choice of the exchange changes no bit.
//
// Who wants what is settled by one all-to-all of marks, a byte for each block of the receiver: S/b bytes a rank, of
// fixed size.
#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "parallel/exchange/exchange.h"
#include "parallel/exchange/frame.h"
#include "runtime/host_buffer.h"

namespace longspan {
namespace {

class FetchExchangeImpl final : public FetchExchange {
 public:
  FetchExchangeImpl(const Layout& layout, Communicator& cp, RowOps& row_ops)
      : layout_(layout),
        cp_(cp),
        row_ops_(row_ops),
        gathered_(layout.GatheredPages(layout.unit())),
        own_blocks_(static_cast<int64_t>(gathered_.size()) / layout.ranks()),
        own_host_(own_blocks_),
        lent_(layout.ranks()),
        borrowed_(layout.ranks()),
        frame_("fetch exchange", layout.sequence(), layout.unit(), OwnPages(layout, cp.rank())) {
    std::iota(own_host_.begin(), own_host_.end(), 0);
  }

  int64_t rows() const override { return frame_.rows(); }
  int64_t own_row() const override { return 0; }
  const Pages& pages() const override { return frame_.pages(); }
  int64_t borrowed_bytes() const override { return borrowed_bytes_; }
  double coverage() const override {
    const int64_t others = static_cast<int64_t>(gathered_.size()) - own_blocks_;
    return others == 0 ? 0.0 : static_cast<double>(Total(borrowed_)) / static_cast<double>(others);
  }

  void Reserve(Arena& arena, const std::string& name, DType dtype, DType gradient_dtype,
               const std::vector<Shape>& shapes) override {
    frame_.Reserve(arena, name, dtype, gradient_dtype, shapes);
    if (cp_.size() == 1) return;
    const int64_t blocks = static_cast<int64_t>(gathered_.size());
    const int64_t most_lent = blocks - own_blocks_;
    // What outlives the layer's turn is workspace.
    arena.Reserve(&place_, MemoryUse::kWorkspace, name + ".place", DType::kI32, {blocks});
    arena.Reserve(&wanted_, MemoryUse::kExchange, name + ".wanted", DType::kU8, {blocks});
    arena.Reserve(&asked_, MemoryUse::kExchange, name + ".asked", DType::kU8, {blocks});
    arena.Reserve(&lent_blocks_, MemoryUse::kWorkspace, name + ".lent_blocks", DType::kI32, {most_lent});
    arena.Reserve(&own_index_, MemoryUse::kWorkspace, name + ".own_index", DType::kI32, {own_blocks_});
    staging_.resize(shapes.size());
    lower_.resize(shapes.size());
    const DType wider = DTypeSize(gradient_dtype) > DTypeSize(dtype) ? gradient_dtype : dtype;
    for (size_t i = 0; i < shapes.size(); ++i) {
      arena.Reserve(&staging_[i], MemoryUse::kExchange, name + ".staging", wider,
                    {most_lent * layout_.unit(), shapes[i][0], shapes[i][1]});
      if (cp_.rank() < 2) continue;
      arena.Reserve(&lower_[i], MemoryUse::kExchange, name + ".lower", gradient_dtype,
                    {layout_.tokens(), shapes[i][0], shapes[i][1]});
    }
  }

  void Start(Device& device, Stream& stream) override {
    device_ = &device;
    const int64_t blocks = static_cast<int64_t>(gathered_.size());
    auto* marks = static_cast<uint8_t*>(marks_buffer_.Get(device, 2 * blocks));
    wanted_host_ = {marks, gathered_.size()};
    asked_host_ = {marks + blocks, gathered_.size()};
    frame_.Upload(device, stream);
    if (cp_.size() == 1) return;
    device.Copy(stream, place_, HostView(gathered_.data(), place_.shape));
    device.Copy(stream, own_index_, HostView(own_host_.data(), own_index_.shape));
  }

  void Choose(Stream& stream, const Tensor& selected) override {
    LS_CHECK(device_, "fetch exchange: Choose before Start");
    LS_CHECK(selected.shape.rank() == 3 && selected.dim(0) == layout_.tokens() && selected.contiguous(),
             "fetch exchange: selected must be [{},G,N], contiguous; found {}", layout_.tokens(),
             selected.shape.ToString());
    if (cp_.size() == 1) return;
    // What a local query selected; what this rank holds itself, too.
    device_->FillBytes(stream, wanted_, 0);
    row_ops_.Mark(stream, selected, place_, wanted_);
    const std::vector<int64_t> counts(cp_.size(), own_blocks_);
    cp_.AllToAll(stream, wanted_, counts, asked_, counts);
    device_->Copy(stream, HostView(wanted_host_.data(), wanted_.shape), wanted_);
    device_->Copy(stream, HostView(asked_host_.data(), asked_.shape), asked_);
    stream.Synchronize();
    Plan();
    frame_.Upload(*device_, stream);
    const Tensor lent = lent_blocks_.Rows(0, static_cast<int64_t>(lent_host_.size()));
    if (!lent_host_.empty()) device_->Copy(stream, lent, HostView(lent_host_.data(), lent.shape));
  }

  void Forward(Stream& stream, const std::vector<Tensor>& buffers) override {
    frame_.CheckBuffers(buffers);
    borrowed_bytes_ = Total(borrowed_) * layout_.unit() * frame_.row_bytes();
    if (cp_.size() == 1) return;
    std::vector<Transfer> batch;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const Tensor staging = Staging(i, buffers[i].dtype);
      if (Total(lent_) > 0) row_ops_.Gather(stream, OwnBlocks(buffers[i]), LentBlocks(), AsBlocks(staging));
      AddTransfers(Transfer::Kind::kSend, lent_, staging, &batch);
      AddTransfers(Transfer::Kind::kReceive, borrowed_, Borrowed(buffers[i]), &batch);
    }
    cp_.SendReceive(stream, batch);
  }

  void Backward(Stream& stream, const std::vector<Tensor>& gradients) override {
    frame_.CheckGradients(gradients);
    if (cp_.size() == 1) return;
    std::vector<Transfer> batch;
    for (size_t i = 0; i < gradients.size(); ++i) {
      AddTransfers(Transfer::Kind::kSend, borrowed_, Borrowed(gradients[i]), &batch);
      AddTransfers(Transfer::Kind::kReceive, lent_, Staging(i, gradients[i].dtype), &batch);
    }
    cp_.SendReceive(stream, batch);
    for (size_t i = 0; i < gradients.size(); ++i) AddReturned(stream, i, OwnBlocks(gradients[i]));
  }

 private:
  static int64_t Total(const std::vector<int64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  }

  // own += what came back of tensor i, so that each sum goes from left to right over the ranks.
  void AddReturned(Stream& stream, size_t i, const Tensor& own) {
    const Tensor returned = AsBlocks(Staging(i, own.dtype)), blocks = LentBlocks();
    const int64_t lower = std::accumulate(lent_.begin(), lent_.begin() + cp_.rank(), int64_t{0});
    const int64_t higher = Total(lent_) - lower;
    // Of two and more lower ranks the sum comes first.
    const bool several = std::count_if(lent_.begin(), lent_.begin() + cp_.rank(), [](int64_t n) { return n > 0; }) > 1;
    if (several) {
      const Tensor sums = AsBlocks(lower_[i]);
      row_ops_.Zero(stream, sums);
      row_ops_.Add(stream, returned.Rows(0, lower), blocks.Rows(0, lower), sums);
      row_ops_.Add(stream, sums, own_index_, own);
    } else if (lower > 0) {
      row_ops_.Add(stream, returned.Rows(0, lower), blocks.Rows(0, lower), own);
    }
    if (higher > 0) row_ops_.Add(stream, returned.Rows(lower, higher), blocks.Rows(lower, higher), own);
  }

  // From the marks: what goes to whom, what comes from whom, and where it will lie.
  void Plan() {
    lent_host_.clear();
    for (const std::span<uint8_t> marks : {wanted_host_, asked_host_}) {
      std::ranges::fill(marks.subspan(cp_.rank() * own_blocks_, own_blocks_), uint8_t{0});
    }
    for (int rank = 0; rank < cp_.size(); ++rank) {
      const uint8_t* asked = asked_host_.data() + rank * own_blocks_;
      const uint8_t* wanted = wanted_host_.data() + rank * own_blocks_;
      lent_[rank] = std::count(asked, asked + own_blocks_, uint8_t{1});
      borrowed_[rank] = std::count(wanted, wanted + own_blocks_, uint8_t{1});
      for (int64_t block = 0; block < own_blocks_; ++block) {
        if (asked[block]) lent_host_.push_back(static_cast<int32_t>(block));
      }
    }
    std::vector<int32_t> slots(wanted_host_.size(), -1);  // by place in a gather
    int32_t slot = static_cast<int32_t>(own_blocks_);
    for (size_t place = 0; place < slots.size(); ++place) {
      if (wanted_host_[place]) slots[place] = slot++;
    }
    const int32_t own_begin = static_cast<int32_t>(cp_.rank() * own_blocks_);
    for (int32_t block = 0; block < own_blocks_; ++block) slots[own_begin + block] = block;
    for (size_t block = 0; block < gathered_.size(); ++block) frame_.table()[block] = slots[gathered_[block]];
  }

  // One message a peer with something to give, each `counts[peer]` blocks of x, one peer after another.
  void AddTransfers(Transfer::Kind kind, const std::vector<int64_t>& counts, const Tensor& x,
                    std::vector<Transfer>* batch) const {
    int64_t row = 0;
    for (int peer = 0; peer < cp_.size(); ++peer) {
      const int64_t rows = counts[peer] * layout_.unit();
      if (rows > 0) batch->push_back({kind, peer, x.Rows(row, rows)});
      row += rows;
    }
  }

  // [n * unit,G,W] as [n, unit*G*W].
  Tensor AsBlocks(const Tensor& x) const {
    return x.Reshape({x.dim(0) / layout_.unit(), layout_.unit() * x.dim(1) * x.dim(2)});
  }
  Tensor OwnBlocks(const Tensor& buffer) const { return AsBlocks(buffer.Rows(0, layout_.tokens())); }
  Tensor Borrowed(const Tensor& buffer) const {
    return buffer.Rows(layout_.tokens(), Total(borrowed_) * layout_.unit());
  }
  Tensor LentBlocks() const { return lent_blocks_.Rows(0, Total(lent_)); }
  Tensor Staging(size_t i, DType dtype) const {
    const Shape& shape = frame_.shapes()[i];
    return Tensor(staging_[i].data, dtype, staging_[i].device, {Total(lent_) * layout_.unit(), shape[0], shape[1]});
  }

  const Layout layout_;
  Communicator& cp_;
  RowOps& row_ops_;
  Device* device_ = nullptr;
  std::vector<int32_t> gathered_;  // block -> place in a gather
  int64_t own_blocks_;             // of every rank
  std::vector<int32_t> own_host_;  // 0, 1, .. own_blocks_ - 1
  HostBuffer marks_buffer_{"marks of selected blocks"};
  std::span<uint8_t> wanted_host_;  // [blocks] by place in a gather: this rank wants it
  std::span<uint8_t> asked_host_;   // [P, own blocks]: that rank wants this rank's block
  std::vector<int32_t> lent_host_;  // own blocks that go out, by borrower, ascending
  std::vector<int64_t> lent_;       // [P] blocks
  std::vector<int64_t> borrowed_;   // [P] blocks
  Tensor place_;                    // gathered_ on the device
  Tensor wanted_, asked_;           // the marks on the device
  Tensor lent_blocks_;              // lent_host_ on the device
  Tensor own_index_;                // own_host_ on the device
  std::vector<Tensor> staging_;     // lent blocks packed, and their gradients when they come back
  std::vector<Tensor> lower_;       // [T,G,W] sums of what came back from the ranks before this one
  ExchangeFrame frame_;
  int64_t borrowed_bytes_ = 0;
};

}  // namespace

std::unique_ptr<FetchExchange> MakeFetchExchange(const Layout& layout, Communicator& cp, RowOps& row_ops) {
  CheckGroup("fetch exchange", layout, cp);
  return std::make_unique<FetchExchangeImpl>(layout, cp, row_ops);
}

}  // namespace longspan

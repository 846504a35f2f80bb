// FETCH: only the blocks that some local query selected. The buffer is a gather's, S rows, of which each owner's part
// begins with what is fetched of it: each message lands where it stays, and all rows have room.
//
// Over MPI a block travels once between two nodes for all ranks that want it (routes.h): a second
// batch passes on what the first brought. Over NCCL each rank asks for itself. Gradients go back alone, each rank's to
// the owner: they are added one by one.
//
// Gradients that come back are added in the order of ranks, the own among them, as GATHER's reduce-scatter adds:
// the choice of the exchange changes no bit.
//
// Who wants what is settled by one all-to-all of marks, a byte for each block of the receiver: S/b bytes a rank, of
// fixed size. Ranks of a node tell each other theirs.
#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "parallel/exchange/exchange.h"
#include "parallel/exchange/frame.h"
#include "parallel/exchange/routes.h"
#include "runtime/host_buffer.h"

namespace longspan {
namespace {

class FetchExchangeImpl final : public FetchExchange {
 public:
  FetchExchangeImpl(const Layout& layout, Communicator& cp, RowOps& row_ops)
      : layout_(layout),
        cp_(cp),
        row_ops_(row_ops),
        nodes_(cp.nodes()),
        gathered_(layout.GatheredPages(layout.unit())),
        own_blocks_(static_cast<int64_t>(gathered_.size()) / layout.ranks()),
        own_host_(own_blocks_),
        lent_(layout.ranks()),
        given_(layout.ranks()),
        borrowed_(layout.ranks()),
        taken_(layout.ranks()),
        frame_("fetch exchange", layout.sequence(), layout.unit(), OwnPages(layout, cp.rank())) {
    std::iota(own_host_.begin(), own_host_.end(), 0);
    for (int32_t& slot : frame_.table()) slot += slot < 0 ? 0 : static_cast<int32_t>(cp.rank() * own_blocks_);
  }

  int64_t rows() const override { return frame_.rows(); }
  int64_t own_row() const override { return cp_.rank() * layout_.tokens(); }
  const Pages& pages() const override { return frame_.pages(); }
  int64_t borrowed_bytes() const override { return borrowed_bytes_; }
  double coverage() const override {
    if (all_) return 1;
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
    if (nodes_) {
      arena.Reserve(&mates_, MemoryUse::kExchange, name + ".mates", DType::kU8, {Mates(), blocks});
    }
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
    const int64_t mates = nodes_ ? Mates() * blocks : 0;
    auto* marks = static_cast<uint8_t*>(marks_buffer_.Get(device, 2 * blocks + mates));
    wanted_host_ = {marks, gathered_.size()};
    asked_host_ = {marks + blocks, gathered_.size()};
    mates_host_ = {marks + 2 * blocks, static_cast<size_t>(mates)};
    frame_.Upload(device, stream);
    if (cp_.size() == 1) return;
    device.Copy(stream, place_, HostView(gathered_.data(), place_.shape));
    device.Copy(stream, own_index_, HostView(own_host_.data(), own_index_.shape));
  }

  void GatherAll(Stream& stream, bool all) override {
    LS_CHECK(device_, "fetch exchange: GatherAll before Start");
    all_ = all;
    if (!all || cp_.size() == 1) return;
    frame_.table() = gathered_;
    frame_.Upload(*device_, stream);
    stream.Synchronize();
  }

  void Choose(Stream& stream, const Tensor& selected) override {
    LS_CHECK(device_ && !all_, "fetch exchange: Choose {}", all_ ? "where all is gathered" : "before Start");
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
    if (nodes_) TellMates(stream);
    stream.Synchronize();
    Plan();
    frame_.Upload(*device_, stream);
    const Tensor lent = lent_blocks_.Rows(0, static_cast<int64_t>(lent_host_.size()));
    if (!lent_host_.empty()) device_->Copy(stream, lent, HostView(lent_host_.data(), lent.shape));
  }

  void Forward(Stream& stream, const std::vector<Tensor>& buffers) override {
    frame_.CheckBuffers(buffers);
    borrowed_bytes_ = (all_ ? rows() - layout_.tokens() : Total(borrowed_) * layout_.unit()) * frame_.row_bytes();
    if (cp_.size() == 1) return;
    if (all_) {
      for (const Tensor& buffer : buffers) cp_.AllGather(stream, OwnRows(buffer), buffer);
      return;
    }
    std::vector<Transfer> batch;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const Tensor staging = Staging(i, buffers[i].dtype);
      if (Total(lent_) > 0) row_ops_.Gather(stream, OwnBlocks(buffers[i]), LentBlocks(), AsBlocks(staging));
      AddLent(Transfer::Kind::kSend, given_, staging, &batch);
      AddBorrowed(Transfer::Kind::kReceive, taken_, buffers[i], &batch);
    }
    cp_.SendReceive(stream, batch);
    if (!nodes_) return;
    batch.clear();
    for (const Tensor& buffer : buffers) {
      for (const Relayed& part : relayed_) {
        batch.push_back({part.kind, part.peer, buffer.Rows(part.block * layout_.unit(), part.blocks * layout_.unit())});
      }
    }
    cp_.SendReceive(stream, batch);
  }

  void Backward(Stream& stream, const std::vector<Tensor>& gradients) override {
    frame_.CheckGradients(gradients);
    if (cp_.size() == 1) return;
    if (all_) {
      for (const Tensor& gradient : gradients) cp_.ReduceScatter(stream, gradient, OwnRows(gradient));
      return;
    }
    std::vector<Transfer> batch;
    for (size_t i = 0; i < gradients.size(); ++i) {
      AddBorrowed(Transfer::Kind::kSend, borrowed_, gradients[i], &batch);
      AddLent(Transfer::Kind::kReceive, lent_, Staging(i, gradients[i].dtype), &batch);
    }
    cp_.SendReceive(stream, batch);
    for (size_t i = 0; i < gradients.size(); ++i) AddReturned(stream, i, OwnBlocks(gradients[i]));
  }

 private:
  // Blocks of a buffer that this rank passes on to another of its node, or gets so.
  struct Relayed {
    Transfer::Kind kind;
    int peer;
    int64_t block, blocks;
  };

  int64_t Mates() const { return std::ssize(nodes_->mates(cp_.rank())); }
  static int64_t Total(const std::vector<int64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  }

  // Each rank of the node gets the others' marks, in the order of mates().
  void TellMates(Stream& stream) {
    std::vector<Transfer> batch;
    const std::vector<int>& mates = nodes_->mates(cp_.rank());
    for (int64_t i = 0; i < Mates(); ++i) {
      if (mates[i] == cp_.rank()) continue;
      batch.push_back({Transfer::Kind::kSend, mates[i], wanted_});
      batch.push_back({Transfer::Kind::kReceive, mates[i], mates_.Rows(i, 1)});
    }
    cp_.SendReceive(stream, batch);
    device_->Copy(stream, HostView(mates_host_.data(), mates_.shape), mates_);
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
    const int own = cp_.rank();
    for (const std::span<uint8_t> marks : {wanted_host_, asked_host_}) {
      std::ranges::fill(marks.subspan(own * own_blocks_, own_blocks_), uint8_t{0});
    }
    BlockMarks asked;
    for (int rank = 0; rank < cp_.size(); ++rank) asked.push_back(asked_host_.data() + rank * own_blocks_);
    lent_host_.clear();
    relayed_.clear();
    std::vector<int32_t> slots(wanted_host_.size(), -1);  // by place in a gather
    for (int rank = 0; rank < cp_.size(); ++rank) {
      const size_t before = lent_host_.size();
      const std::vector<Portion> lent = PortionsOf(nodes_, own, rank, own_blocks_, asked);
      for (const Portion& portion : lent) {
        lent_host_.insert(lent_host_.end(), portion.blocks.begin(), portion.blocks.end());
      }
      lent_[rank] = static_cast<int64_t>(lent_host_.size() - before);
      given_[rank] = std::ssize(lent[0].blocks);

      const BlockMarks wanted = WantedOf(rank);
      const std::vector<Portion> borrowed = PortionsOf(nodes_, rank, own, own_blocks_, wanted);
      const int64_t begin = rank * own_blocks_;
      int64_t slot = begin;
      for (const Portion& portion : borrowed) {
        if (portion.from != rank) AddReceived(rank, portion.from, slot, wanted);
        for (const int32_t block : portion.blocks) slots[begin + block] = static_cast<int32_t>(slot++);
      }
      borrowed_[rank] = slot - begin;
      taken_[rank] = std::ssize(borrowed[0].blocks);
      AddPassedOn(rank, borrowed[0], wanted);
    }
    std::iota(slots.begin() + own * own_blocks_, slots.begin() + (own + 1) * own_blocks_,
              static_cast<int32_t>(own * own_blocks_));
    for (size_t block = 0; block < gathered_.size(); ++block) frame_.table()[block] = slots[gathered_[block]];
  }

  // What this rank and those of its node want of `owner`.
  BlockMarks WantedOf(int owner) const {
    BlockMarks marks(cp_.size(), nullptr);
    marks[cp_.rank()] = wanted_host_.data() + owner * own_blocks_;
    if (!nodes_) return marks;
    const auto& mates = nodes_->mates(cp_.rank());
    for (size_t i = 0; i < mates.size(); ++i) {
      if (mates[i] == cp_.rank()) continue;
      marks[mates[i]] = mates_host_.data() + i * gathered_.size() + owner * own_blocks_;
    }
    return marks;
  }

  // Of what this rank takes from `owner`, on another node, what others of its node want.
  void AddPassedOn(int owner, const Portion& taken, const BlockMarks& wanted) {
    if (!nodes_ || nodes_->Near(owner, cp_.rank())) return;
    for (const int mate : nodes_->mates(cp_.rank())) {
      if (mate <= cp_.rank()) continue;  // a lower one has it from its owner
      for (const Run& run : RunsOf(taken, wanted[mate])) {
        relayed_.push_back({Transfer::Kind::kSend, mate, owner * own_blocks_ + run.begin, run.length});
      }
    }
  }
  // Of what `mate` takes from `owner`, what this rank gets from it: blocks from `slot` on.
  void AddReceived(int owner, int mate, int64_t slot, const BlockMarks& wanted) {
    const Portion taken = PortionsOf(nodes_, owner, mate, own_blocks_, wanted)[0];
    for (const Run& run : RunsOf(taken, wanted[cp_.rank()])) {
      relayed_.push_back({Transfer::Kind::kReceive, mate, slot, run.length});
      slot += run.length;
    }
  }

  // One message a peer with something to give, `counts` blocks of the buffer `x`, each owner's part of which begins
  // with it.
  void AddBorrowed(Transfer::Kind kind, const std::vector<int64_t>& counts, const Tensor& x,
                   std::vector<Transfer>* batch) const {
    for (int peer = 0; peer < cp_.size(); ++peer) {
      const int64_t rows = counts[peer] * layout_.unit();
      if (rows > 0) batch->push_back({kind, peer, x.Rows(peer * layout_.tokens(), rows)});
    }
  }
  // And of `staging`, in which lent blocks lie one peer's after another.
  void AddLent(Transfer::Kind kind, const std::vector<int64_t>& counts, const Tensor& staging,
               std::vector<Transfer>* batch) const {
    int64_t row = 0;
    for (int peer = 0; peer < cp_.size(); ++peer) {
      const int64_t rows = counts[peer] * layout_.unit();
      if (rows > 0) batch->push_back({kind, peer, staging.Rows(row, rows)});
      row += lent_[peer] * layout_.unit();
    }
  }

  // [n * unit,G,W] as [n, unit*G*W].
  Tensor AsBlocks(const Tensor& x) const {
    return x.Reshape({x.dim(0) / layout_.unit(), layout_.unit() * x.dim(1) * x.dim(2)});
  }
  Tensor OwnRows(const Tensor& buffer) const { return buffer.Rows(own_row(), layout_.tokens()); }
  Tensor OwnBlocks(const Tensor& buffer) const { return AsBlocks(OwnRows(buffer)); }
  Tensor LentBlocks() const { return lent_blocks_.Rows(0, Total(lent_)); }
  Tensor Staging(size_t i, DType dtype) const {
    const Shape& shape = frame_.shapes()[i];
    return Tensor(staging_[i].data, dtype, staging_[i].device, {Total(lent_) * layout_.unit(), shape[0], shape[1]});
  }

  const Layout layout_;
  Communicator& cp_;
  RowOps& row_ops_;
  const NodeMap* const nodes_;  // null: each fetches for itself
  Device* device_ = nullptr;
  bool all_ = false;
  std::vector<int32_t> gathered_;  // block -> place in a gather
  int64_t own_blocks_;             // of every rank
  std::vector<int32_t> own_host_;  // 0, 1, .. own_blocks_ - 1
  HostBuffer marks_buffer_{"marks of selected blocks"};
  std::span<uint8_t> wanted_host_;  // [blocks] by place in a gather: this rank wants it
  std::span<uint8_t> asked_host_;   // [P, own blocks]: that rank wants this rank's block
  std::span<uint8_t> mates_host_;   // [ranks of the node, blocks]: as wanted_host_, of each but this
  std::vector<int32_t> lent_host_;  // own blocks that are borrowed, by borrower, in the order in which they lie there
  std::vector<int64_t> lent_;       // [P] own blocks that a rank wants
  std::vector<int64_t> given_;  // [P] the first of them, which this rank sends it; others of its node pass on the rest
  std::vector<int64_t> borrowed_;  // [P] blocks of a rank that this one wants
  std::vector<int64_t> taken_;     // [P] the first of them, which that rank sends
  std::vector<Relayed> relayed_;
  Tensor place_;                   // gathered_ on the device
  Tensor wanted_, asked_, mates_;  // the marks on the device
  Tensor lent_blocks_;             // lent_host_ on the device
  Tensor own_index_;               // own_host_ on the device
  std::vector<Tensor> staging_;    // lent blocks packed, and their gradients when they come back
  std::vector<Tensor> lower_;      // [T,G,W] sums of what came back from the ranks before this one
  ExchangeFrame frame_;
  int64_t borrowed_bytes_ = 0;
};

}  // namespace

std::unique_ptr<FetchExchange> MakeFetchExchange(const Layout& layout, Communicator& cp, RowOps& row_ops) {
  CheckGroup("fetch exchange", layout, cp);
  return std::make_unique<FetchExchangeImpl>(layout, cp, row_ops);
}

}  // namespace longspan

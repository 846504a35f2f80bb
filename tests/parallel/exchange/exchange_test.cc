// The exchanges, with whole numbers and ==. One rig for all: after Forward every row that a rank may read is the row of
// the sequence; after Backward every own row's gradient is the sum over all ranks that may read it. Run wherever
// places.h says; CPU streams work at once, or as late and mixed as the events allow.
#include "parallel/exchange/exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "runtime/trace.h"
#include "tests/parallel/places.h"

namespace longspan {
namespace {

constexpr LayoutKind kKinds[] = {LayoutKind::kContiguous, LayoutKind::kHeadTail};
constexpr int64_t kUnit = 4;
const std::vector<Shape> kShapes = {{2, 3}, {2, 5}};  // [G,W] of k and v

// reach[rank][row of the sequence]: that rank reads the row. Its own rows always.
using Reach = std::vector<std::vector<bool>>;

float Value(int pass, size_t tensor, int64_t row, int64_t element) {
  return static_cast<float>(100000 * pass + 50000 * static_cast<int64_t>(tensor) + 16 * row + element);
}

float Gradient(int pass, int rank, size_t tensor, int64_t row, int64_t element) {
  return static_cast<float>((rank + 1) * ((row * 7 + element * 3 + static_cast<int64_t>(tensor) + pass) % 31 + 1));
}

// What a rank can read before anything travels. `stride` tokens make a row.
Reach OwnRows(const Layout& layout, int64_t stride) {
  Reach reach(layout.ranks(), std::vector<bool>(layout.sequence() / stride, false));
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    for (const Segment& segment : layout.segments(rank)) {
      for (int64_t i = 0; i < segment.length / stride; ++i) reach[rank][segment.begin / stride + i] = true;
    }
  }
  return reach;
}

// A tensor's twin in page-locked host memory: copies keep the order of the stream.
class Mirror {
 public:
  Mirror(Device& device, const Tensor& x)
      : tensor_(x), host_(buffer_->Get(device, x.bytes()), x.dtype, DeviceKind::kCpu, x.shape) {}
  const Tensor& host() const { return host_; }
  void Push(Device& device, Stream& stream) const { device.Copy(stream, tensor_, host_); }
  void Pull(Device& device, Stream& stream) const { device.Copy(stream, host_, tensor_); }

 private:
  std::unique_ptr<HostBuffer> buffer_ = std::make_unique<HostBuffer>("mirror");
  Tensor tensor_, host_;
};

class ExchangeTest : public testing::TestWithParam<test::Place> {
 protected:
  void SetUp() override {
    if (!test::CanRun()) GTEST_SKIP() << "no GPU";
    test::Machine& machine = test::MachineAt(GetParam());
    SetCpuStreamMode(GetParam().reorder == 0 ? CpuStreamMode::kImmediate : CpuStreamMode::kReorder,
                     GetParam().reorder * 100 + machine.world->rank());
    device_ = machine.device.get();
    cp_ = machine.world.get();
    ops_ = &machine.ops;
    compute_ = device_->MakeStream("compute");
    comm_ = device_->MakeStream("comm");
  }
  void TearDown() override { SetCpuStreamMode(CpuStreamMode::kImmediate); }

  // For any number of ranks a layout with `units` units in a chunk; on one rank a length that no unit divides.
  Layout MakeLayout(LayoutKind kind, int64_t units) const {
    const int ranks = cp_->size();
    if (ranks == 1) return Layout(kind, kUnit * units + 3, 1, kUnit);
    return Layout(kind, kUnit * units * ranks * (kind == LayoutKind::kHeadTail ? 2 : 1), ranks, kUnit);
  }

  void Prepare(Exchange& exchange) {
    arena_ = std::make_unique<Arena>();
    exchange.Reserve(*arena_, "test", DType::kF32, DType::kF32, kShapes);
    buffers_.assign(kShapes.size(), {});
    gradients_.assign(kShapes.size(), {});
    for (size_t i = 0; i < kShapes.size(); ++i) {
      const Shape shape = {exchange.rows(), kShapes[i][0], kShapes[i][1]};
      arena_->Reserve(&buffers_[i], MemoryUse::kActivations, "buffer", DType::kF32, shape);
      arena_->Reserve(&gradients_[i], MemoryUse::kActivations, "gradient", DType::kF32, shape);
    }
    arena_->Commit(*device_);
    exchange.Start(*device_, *comm_);
    host_buffers_.clear();
    host_gradients_.clear();
    for (const Tensor& x : buffers_) host_buffers_.emplace_back(*device_, x);
    for (const Tensor& x : gradients_) host_gradients_.emplace_back(*device_, x);
    table_.emplace(*device_, exchange.pages().table);
  }

  // What follows on the second stream sees what was done on the first.
  void Order(Stream& first, Stream& second) {
    events_.push_back(device_->MakeEvent());
    first.Record(*events_.back());
    second.Wait(*events_.back());
  }

  // Forward and backward of one pass. Rows that nobody may read hold NaN: one that travelled or was added would show.
  void Run(Exchange& exchange, const Reach& reach, int pass) {
    const std::vector<bool>& mine = reach[cp_->rank()];
    Order(*comm_, *compute_);
    table_->Pull(*device_, *compute_);
    compute_->Enqueue([&] {
      FillAll(host_buffers_);
      ForReached(exchange, own_, [&](size_t i, int64_t row, int64_t e, float* x) { *x = Value(pass, i, row, e); });
    });
    PushAll(host_buffers_);
    Order(*compute_, *comm_);
    exchange.Forward(*comm_, buffers_);
    Order(*comm_, *compute_);
    PullAll(host_buffers_);
    compute_->Enqueue([&] {
      CheckTable(exchange, mine);
      ForReached(exchange, mine, [&](size_t i, int64_t row, int64_t e, float* x) {
        ASSERT_EQ(*x, Value(pass, i, row, e)) << "row " << row << " of tensor " << i;
      });
      FillAll(host_gradients_);
      ForReached(exchange, mine, [&](size_t i, int64_t row, int64_t e, float*) {
        At(exchange, host_gradients_[i], row)[e] = Gradient(pass, cp_->rank(), i, row, e);
      });
    });
    PushAll(host_gradients_);
    Order(*compute_, *comm_);
    exchange.Backward(*comm_, gradients_);
    Order(*comm_, *compute_);
    PullAll(host_gradients_);
    compute_->Enqueue([&] {
      ForReached(exchange, own_, [&](size_t i, int64_t row, int64_t e, float*) {
        float expected = 0;
        bool shared = false;
        for (int rank = 0; rank < cp_->size(); ++rank) {
          if (!reach[rank][row]) continue;
          expected += Gradient(pass, rank, i, row, e);
          shared |= rank != cp_->rank();
        }
        const float found = At(exchange, host_gradients_[i], row)[e];
        ASSERT_EQ(found, expected) << "row " << row << " of tensor " << i;
        // The known trap: a rank's own share is not the gradient of a row that others read.
        if (shared) {
          ASSERT_NE(found, Gradient(pass, cp_->rank(), i, row, e));
        }
      });
    });
    compute_->Synchronize();
    comm_->Synchronize();
    int64_t borrowed = 0;
    for (size_t row = 0; row < mine.size(); ++row) borrowed += mine[row] && !own_[row];
    EXPECT_EQ(exchange.borrowed_bytes(), borrowed * (2 * 3 + 2 * 5) * 4);
  }

  void PushAll(const std::vector<Mirror>& mirrors) {
    for (const Mirror& mirror : mirrors) mirror.Push(*device_, *compute_);
  }
  void PullAll(const std::vector<Mirror>& mirrors) {
    for (const Mirror& mirror : mirrors) mirror.Pull(*device_, *compute_);
  }

  float* At(const Exchange& exchange, const Mirror& mirror, int64_t row) const {
    const Tensor& buffer = mirror.host();
    const int64_t page_rows = exchange.pages().page_rows;
    const int64_t page = table_->host().As<int32_t>()[row / page_rows];
    EXPECT_GE(page, 0) << "row " << row << " is not here";
    if (page < 0) return nullptr;
    const int64_t place = page * page_rows + row % page_rows;
    EXPECT_LT(place, buffer.dim(0));
    return buffer.As<float>() + place * buffer.stride[0];
  }

  template <typename Visit>
  void ForReached(const Exchange& exchange, const std::vector<bool>& reached, Visit visit) {
    for (size_t i = 0; i < buffers_.size(); ++i) {
      for (int64_t row = 0; row < static_cast<int64_t>(reached.size()); ++row) {
        if (!reached[row]) continue;
        float* const x = At(exchange, host_buffers_[i], row);
        if (x == nullptr) return;
        for (int64_t e = 0; e < kShapes[i].count(); ++e) visit(i, row, e, x + e);
      }
    }
  }

  static void FillAll(const std::vector<Mirror>& mirrors) {
    for (const Mirror& x : mirrors) {
      std::fill_n(x.host().As<float>(), x.host().size(), std::numeric_limits<float>::quiet_NaN());
    }
  }

  // A page is here exactly when some of its rows may be read; no two lie in one place; own rows lie from own_row() on.
  void CheckTable(const Exchange& exchange, const std::vector<bool>& mine) const {
    const Tensor& table = table_->host();
    const int64_t page_rows = exchange.pages().page_rows;
    std::vector<int32_t> places;
    for (int64_t page = 0; page < table.size(); ++page) {
      bool any = false;
      for (int64_t row = page * page_rows; row < (page + 1) * page_rows; ++row) {
        any |= row < static_cast<int64_t>(mine.size()) && mine[row];
      }
      const int32_t place = table.As<int32_t>()[page];
      if (any) {
        places.push_back(place);
        EXPECT_GE(place, 0) << "page " << page;
      } else if (cp_->size() > 1) {
        EXPECT_EQ(place, -1) << "page " << page;
      }
    }
    std::sort(places.begin(), places.end());
    EXPECT_TRUE(std::adjacent_find(places.begin(), places.end()) == places.end());
  }

  // Local row 0 is the first row of the first segment, and so on.
  void CheckOwnRow(const Exchange& exchange, const Layout& layout, int64_t stride) {
    const Segment& first = layout.segments(cp_->rank())[0];
    float* const begin = At(exchange, host_buffers_[0], first.begin / stride);
    EXPECT_EQ(begin - host_buffers_[0].host().As<float>(), exchange.own_row() * buffers_[0].stride[0]);
  }

  Device* device_ = nullptr;
  Communicator* cp_ = nullptr;
  Ops* ops_ = nullptr;
  std::unique_ptr<Stream> compute_, comm_;
  std::unique_ptr<Arena> arena_;
  std::vector<Tensor> buffers_, gradients_;
  std::vector<Mirror> host_buffers_, host_gradients_;
  std::optional<Mirror> table_;
  std::vector<bool> own_;  // rows of the sequence that this rank holds
  std::vector<std::unique_ptr<Event>> events_;
};

TEST_P(ExchangeTest, HaloOfAnyLength) {
  for (LayoutKind kind : kKinds) {
    for (int64_t units : {1, 2, 3}) {
      const Layout layout = MakeLayout(kind, units);
      own_ = OwnRows(layout, 1)[cp_->rank()];
      // Nothing, a part of a page, a page, more than a chunk, several chunks, everything.
      for (int64_t halo : {0, 1, 3, 4, 7, 13, 31, 1000}) {
        SCOPED_TRACE(fmt::format("kind {} units {} halo {}", static_cast<int>(kind), units, halo));
        Reach reach = OwnRows(layout, 1);
        for (int rank = 0; rank < layout.ranks(); ++rank) {
          for (const Segment& segment : layout.segments(rank)) {
            for (int64_t back = 1; back <= std::min(halo, segment.begin); ++back)
              reach[rank][segment.begin - back] = true;
          }
        }
        // In a buffer of its own, and behind what a gather would bring to one.
        const HaloPlace behind{cp_->rank() * layout.tokens(), layout.sequence()};
        for (const HaloPlace& place : {HaloPlace{}, behind}) {
          const auto exchange = MakeHaloExchange(layout, *cp_, *ops_->dense, halo, place);
          EXPECT_EQ(exchange->own_row(), place.own_row);
          Prepare(*exchange);
          for (int pass = 0; pass < 2; ++pass) Run(*exchange, reach, pass);
          CheckOwnRow(*exchange, layout, 1);
        }
        if (cp_->size() > 1) {
          EXPECT_THROW(MakeHaloExchange(layout, *cp_, *ops_->dense, halo, {.own_row = 1}), Error);
        }
      }
    }
  }
}

TEST_P(ExchangeTest, GatherOfTokensAndOfSummaries) {
  for (LayoutKind kind : kKinds) {
    for (int64_t units : {1, 3}) {
      const Layout layout = MakeLayout(kind, units);
      for (int64_t stride : {1, 2, 4}) {
        for (int64_t page : {kUnit, layout.chunk()}) {
          if (page % stride != 0) continue;
          SCOPED_TRACE(fmt::format("kind {} units {} stride {} page {}", static_cast<int>(kind), units, stride, page));
          own_ = OwnRows(layout, stride)[cp_->rank()];
          const Reach reach(layout.ranks(), std::vector<bool>(layout.sequence() / stride, true));
          const auto exchange = MakeGatherExchange(layout, *cp_, stride, page);
          EXPECT_EQ(exchange->rows(), layout.sequence() / stride);
          Prepare(*exchange);
          for (int pass = 0; pass < 2; ++pass) Run(*exchange, reach, pass);
          EXPECT_EQ(exchange->pages().table.size(), (layout.sequence() + page - 1) / page);
          CheckOwnRow(*exchange, layout, stride);
        }
      }
    }
  }
}

// What rank `rank` selects in a pass: [T,2,3] block ids, -1 where it takes none.
std::vector<int32_t> Selection(const Layout& layout, int rank, int pass) {
  const int32_t blocks = static_cast<int32_t>((layout.sequence() + kUnit - 1) / kUnit);
  std::vector<int32_t> ids(layout.tokens() * 6, -1);
  std::mt19937 random(1000 * pass + rank);
  switch (pass) {
    case 0:  // nobody takes anything
      break;
    case 1:  // a few at random
    case 5:
      for (int32_t& id : ids) id = random() % 16 == 0 ? static_cast<int32_t>(random() % blocks) : -1;
      break;
    case 2:  // the last rank alone, the first block and the last
      if (rank == layout.ranks() - 1) {
        ids[0] = 0;
        ids[5] = blocks - 1;
      }
      break;
    case 3:  // everybody, everything
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i) % blocks;
      break;
    case 4:  // everybody the same block
      ids[ids.size() - 1] = blocks / 2;
      break;
    default:
      ADD_FAILURE() << "pass " << pass;
  }
  return ids;
}

TEST_P(ExchangeTest, FetchOfWhatIsSelected) {
  for (LayoutKind kind : kKinds) {
    for (int64_t units : {1, 3}) {
      const Layout layout = MakeLayout(kind, units);
      own_ = OwnRows(layout, 1)[cp_->rank()];
      const auto exchange = MakeFetchExchange(layout, *cp_, *ops_->rows);
      EXPECT_EQ(exchange->rows(), layout.sequence());
      Prepare(*exchange);
      constexpr int kAll = 9;  // a pass that gathers all
      for (int pass : {0, 1, 2, 3, 4, 5, kAll, 2, 0}) {
        SCOPED_TRACE(fmt::format("kind {} units {} pass {}", static_cast<int>(kind), units, pass));
        exchange->GatherAll(*comm_, pass == kAll);
        if (pass == kAll) {
          Run(*exchange, Reach(layout.ranks(), std::vector<bool>(layout.sequence(), true)), pass);
          EXPECT_EQ(exchange->coverage(), 1);
          EXPECT_THROW(exchange->Choose(*comm_, Tensor()), Error);
          continue;
        }
        Reach reach = OwnRows(layout, 1);
        std::vector<int32_t> mine;
        for (int rank = 0; rank < layout.ranks(); ++rank) {
          const std::vector<int32_t> ids = Selection(layout, rank, pass);
          for (int32_t id : ids) {
            if (id < 0) continue;
            const int64_t end = std::min((id + 1) * kUnit, layout.sequence());
            std::fill(reach[rank].begin() + id * kUnit, reach[rank].begin() + end, true);
          }
          if (rank == cp_->rank()) mine = ids;
        }
        // Written as late as allowed: Choose must wait for it.
        const test::Placed<int32_t> selected(*device_, *compute_, std::vector<int32_t>(mine.size(), -7));
        const Mirror mirror(*device_, selected.view());
        compute_->Enqueue([&] { std::copy(mine.begin(), mine.end(), mirror.host().As<int32_t>()); });
        mirror.Push(*device_, *compute_);
        Order(*compute_, *comm_);
        exchange->Choose(*comm_, selected.view().Reshape({layout.tokens(), 2, 3}));
        Run(*exchange, reach, pass);
        const int64_t held = std::count(own_.begin(), own_.end(), true);
        const int64_t reached = std::count(reach[cp_->rank()].begin(), reach[cp_->rank()].end(), true);
        const double others = static_cast<double>(layout.sequence() - held);
        EXPECT_EQ(exchange->coverage(), others == 0 ? 0.0 : static_cast<double>(reached - held) / others);
      }
      CheckOwnRow(*exchange, layout, 1);
    }
  }
}

// Where sums go in the order of ranks, gradients of any numbers have the same bits by both exchanges.
TEST_P(ExchangeTest, FetchAddsInGathersOrder) {
  const Layout layout = MakeLayout(LayoutKind::kHeadTail, 3);
  own_ = OwnRows(layout, 1)[cp_->rank()];
  const auto blocks = static_cast<int32_t>((layout.sequence() + kUnit - 1) / kUnit);
  std::vector<int32_t> mine(layout.tokens() * 6, -1);
  std::mt19937 random(cp_->rank());
  for (int32_t& id : mine) id = random() % 2 == 0 ? static_cast<int32_t>(random() % blocks) : -1;
  std::vector<bool> reached = own_;
  for (const int32_t id : mine) {
    if (id < 0) continue;
    const int64_t end = std::min((id + 1) * kUnit, layout.sequence());
    std::fill(reached.begin() + id * kUnit, reached.begin() + end, true);
  }
  std::vector<float> values[2];  // of own rows, by exchange
  const auto gather = MakeGatherExchange(layout, *cp_, 1, kUnit);
  const auto fetch = MakeFetchExchange(layout, *cp_, *ops_->rows);
  for (Exchange* const exchange : {gather.get(), static_cast<Exchange*>(fetch.get())}) {
    Prepare(*exchange);
    if (exchange == fetch.get()) {
      const test::Placed<int32_t> selected(*device_, *comm_, mine);
      fetch->Choose(*comm_, selected.view().Reshape({layout.tokens(), 2, 3}));
    }
    table_->Pull(*device_, *comm_);
    comm_->Synchronize();
    for (const Mirror& x : host_gradients_) std::fill_n(x.host().As<float>(), x.host().size(), 0.0F);
    std::mt19937 digits(100 + cp_->rank());
    std::normal_distribution<float> normal;
    ForReached(*exchange, reached, [&](size_t i, int64_t row, int64_t e, float*) {
      At(*exchange, host_gradients_[i], row)[e] = normal(digits);
    });
    for (const Mirror& x : host_gradients_) x.Push(*device_, *comm_);
    exchange->Backward(*comm_, gradients_);
    for (const Mirror& x : host_gradients_) x.Pull(*device_, *comm_);
    comm_->Synchronize();
    ForReached(*exchange, own_, [&](size_t i, int64_t row, int64_t e, float*) {
      values[exchange == fetch.get()].push_back(At(*exchange, host_gradients_[i], row)[e]);
    });
  }
  for (size_t i = 0; i < values[0].size(); ++i) ASSERT_EQ(values[0][i], values[1][i]) << "value " << i;
}

// Whatever ranks of a node want of another's crosses the network once; what each wants of its own node does not.
TEST_P(ExchangeTest, FetchAsksForABlockOnceANode) {
  const int of_node = GetParam().ranks_of_node, ranks = cp_->size();
  if (of_node == 0) GTEST_SKIP() << "one node";
  const Layout layout = MakeLayout(LayoutKind::kHeadTail, 3);
  const auto exchange = MakeFetchExchange(layout, *cp_, *ops_->rows);
  Prepare(*exchange);
  for (const int pass : {1, 2, 3}) {
    std::vector<std::vector<bool>> wanted((ranks + of_node - 1) / of_node, std::vector<bool>(layout.sequence()));
    int64_t blocks = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      for (const int32_t id : Selection(layout, rank, pass)) {
        if (id < 0 || layout.Find(id * kUnit).rank / of_node == rank / of_node) continue;
        std::vector<bool>& node = wanted[rank / of_node];
        if (!node[id]) ++blocks;
        node[id] = true;
      }
    }
    const test::Placed<int32_t> selected(*device_, *comm_, Selection(layout, cp_->rank(), pass));
    exchange->Choose(*comm_, selected.view().Reshape({layout.tokens(), 2, 3}));
    comm_->Synchronize();
    Trace::Get().Reset();
    exchange->Forward(*comm_, buffers_);
    comm_->Synchronize();
    double far = Trace::Get().totals()["comm.send_receive"].far;
    cp_->AllReduce(*comm_, HostView(&far, {1}), ReduceOp::kSum);
    comm_->Synchronize();
    EXPECT_EQ(far, static_cast<double>(blocks * kUnit * (2 * 3 + 2 * 5) * 4)) << "pass " << pass;
  }
}

INSTANTIATE_TEST_SUITE_P(Places, ExchangeTest, testing::ValuesIn(test::Places()), test::PlaceName);
INSTANTIATE_TEST_SUITE_P(Nodes, ExchangeTest, testing::ValuesIn(test::NodePlaces()), test::PlaceName);

TEST(Exchange, RefusesWhatDoesNotFit) {
  if (!test::CanRun()) GTEST_SKIP() << "no GPU";
  const auto device = MakeCpuDevice();
  const auto stream = device->MakeStream("comm");
  const auto cp = MakeMpiWorld();
  Ops ops = MakeCpuOps();
  const int ranks = cp->size();
  const Layout layout(LayoutKind::kHeadTail, 2 * ranks * kUnit, ranks, kUnit);
  const Layout other(LayoutKind::kHeadTail, 2 * (ranks + 1) * kUnit, ranks + 1, kUnit);
  EXPECT_THROW(MakeHaloExchange(other, *cp, *ops.dense, 3), Error);
  EXPECT_THROW(MakeHaloExchange(layout, *cp, *ops.dense, -1), Error);
  EXPECT_THROW(MakeGatherExchange(other, *cp, 1, kUnit), Error);
  EXPECT_THROW(MakeGatherExchange(layout, *cp, 3, kUnit), Error);
  EXPECT_THROW(MakeFetchExchange(other, *cp, *ops.rows), Error);

  const auto fetch = MakeFetchExchange(layout, *cp, *ops.rows);
  Arena arena;
  fetch->Reserve(arena, "fetch", DType::kF32, DType::kF64, {{1, 2}});
  EXPECT_THROW(fetch->Reserve(arena, "fetch", DType::kF32, DType::kF32, {{1, 2}}), Error);
  std::vector<int32_t> selected(layout.tokens(), -1);
  const Shape shape = {layout.tokens(), 1, 1};
  EXPECT_THROW(fetch->Choose(*stream, HostView(selected.data(), shape)), Error) << "before Start";
  arena.Commit(*device);
  fetch->Start(*device, *stream);
  EXPECT_THROW(fetch->Choose(*stream, HostView(selected.data(), {layout.tokens()})), Error);
  std::vector<float> x(layout.sequence() * 2);
  const Shape buffer = {layout.sequence(), 1, 2};
  EXPECT_THROW(fetch->Forward(*stream, {}), Error);
  EXPECT_THROW(fetch->Forward(*stream, {HostView(x.data(), {layout.sequence(), 2, 1})}), Error);
  EXPECT_THROW(fetch->Backward(*stream, {HostView(x.data(), buffer)}), Error) << "gradients are F64";
  if (ranks > 1) {
    selected[0] = 2 * ranks;
    EXPECT_THROW(fetch->Choose(*stream, HostView(selected.data(), shape)), Error) << "a block beyond the sequence";
  }
  stream->Synchronize();
}

}  // namespace
}  // namespace longspan

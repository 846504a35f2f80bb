// CheckCollectives (links.h). Every element is contributed by two ranks, the others give zero, so that sums stay whole
// numbers below 256, which all types hold, and a part that was dropped, doubled or taken from another rank shows.
#include <algorithm>
#include <numeric>

#include "kernels/host_copy.h"
#include "launch/commands/links.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

constexpr int64_t kCounts[] = {1, 1003, 9001};  // of a part; the last one beyond what is reduced as one gather

// What a rank gives to element i of a reduction over `size` ranks.
int64_t Given(int rank, int64_t i, int size) {
  return (rank == i % size ? 1 + i % 96 : 0) + (rank == (i + 1) % size ? 1 + i % 32 : 0);
}
int64_t SumOfGiven(int64_t i) { return 2 + i % 96 + i % 32; }
int64_t MaxOfGiven(int64_t i, int size) { return size == 1 ? SumOfGiven(i) : std::max(1 + i % 96, 1 + i % 32); }
// What a rank has in its place i, where nothing is added.
int64_t Held(int rank, int64_t i) { return (rank * 31 + i) % 251; }

// T: of the numbers on the host.
template <typename T>
class Checker {
 public:
  Checker(Communicator& group, Device& device, Stream& stream, DType dtype, CollectiveCheck* check)
      : group_(group),
        device_(device),
        stream_(stream),
        dtype_(dtype),
        check_(check),
        rank_(group.rank()),
        size_(group.size()) {}

  void All() {
    for (const int64_t count : kCounts) {
      Reductions(count);
      Parts(std::vector<int64_t>(size_, count));
      std::vector<int64_t> uneven(size_);
      for (int r = 0; r < size_; ++r) uneven[r] = (r * 3 + 1) % 5 * count / 4;  // the fourth of five has none
      Parts(uneven);
      Messages(count);
    }
  }

 private:
  struct Placed {
    Buffer memory;
    Tensor view;
  };
  template <typename Values>
  Placed Put(int64_t count, Values values) {
    std::vector<T> host(count);
    for (int64_t i = 0; i < count; ++i) host[i] = static_cast<T>(values(i));
    Placed placed{Buffer(device_, std::max<int64_t>(1, count) * DTypeSize(dtype_), "numbers to check transfers"), {}};
    placed.view = Tensor(placed.memory.data(), dtype_, device_.kind(), {count});
    if (count > 0) HostCopy(device_, stream_, HostView(host.data(), {count}), placed.view);
    return placed;
  }
  Placed Room(int64_t count) {
    return Put(count, [](int64_t) { return 255; });
  }

  template <typename Values>
  void Expect(const char* verb, const Tensor& found, Values expected) {
    ++check_->calls;
    stream_.Synchronize();
    if (!check_->wrong.empty() || found.size() == 0) return;
    std::vector<T> host(found.size());
    HostCopy(device_, stream_, found, HostView(host.data(), found.shape));
    for (int64_t i = 0; i < std::ssize(host); ++i) {
      if (host[i] == static_cast<T>(expected(i))) continue;
      check_->wrong = fmt::format("{} of {} over {} ranks, element {} of {}: expected {}, found {}", verb,
                                  DTypeName(dtype_), size_, i, host.size(), expected(i), host[i]);
      return;
    }
  }

  void Reductions(int64_t count) {
    const auto given = [&](int64_t i) { return Given(rank_, i, size_); };
    const Placed sum = Put(count, given), most = Put(count, given);
    group_.AllReduce(stream_, sum.view, ReduceOp::kSum);
    Expect("all-reduce (sum)", sum.view, SumOfGiven);
    group_.AllReduce(stream_, most.view, ReduceOp::kMax);
    Expect("all-reduce (max)", most.view, [&](int64_t i) { return MaxOfGiven(i, size_); });
  }

  // Of rank r `counts[r]` elements.
  void Parts(const std::vector<int64_t>& counts) {
    const int64_t own = counts[rank_], all = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    const int64_t begin = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t{0});
    const Placed part = Put(own, [&](int64_t i) { return Held(rank_, i); });
    const Placed whole = Room(all);
    group_.AllGather(stream_, part.view, whole.view, counts);
    Expect("all-gather", whole.view, [&](int64_t i) {
      int from = 0;
      while (i >= counts[from]) i -= counts[from++];
      return Held(from, i);
    });
    const Placed given = Put(all, [&](int64_t i) { return Given(rank_, i, size_); }), mine = Room(own);
    group_.ReduceScatter(stream_, given.view, mine.view, counts);
    Expect("reduce-scatter", mine.view, [&](int64_t i) { return SumOfGiven(begin + i); });
    // To rank r `counts[r]` elements, so that each gets as many from everyone.
    const Placed sent = Put(all, [&](int64_t i) { return Held(rank_, i); }), received = Room(own * size_);
    group_.AllToAll(stream_, sent.view, counts, received.view, std::vector<int64_t>(size_, own));
    Expect("all-to-all", received.view, [&](int64_t i) { return Held(static_cast<int>(i / own), begin + i % own); });
  }

  void Messages(int64_t count) {
    const auto held = [&](int64_t i) { return Held(rank_, i); };
    const int next = (rank_ + 1) % size_, previous = (rank_ + size_ - 1) % size_;
    const Placed out = Put(count, held), in = Room(count);
    if (size_ > 1) {
      group_.SendReceive(stream_,
                         {{Transfer::Kind::kSend, next, out.view}, {Transfer::Kind::kReceive, previous, in.view}});
      Expect("send-receive", in.view, [&](int64_t i) { return Held(previous, i); });
    }
    for (const int root : {0, size_ - 1}) {
      const Placed x = Put(count, held);
      group_.Broadcast(stream_, x.view, root);
      Expect("broadcast", x.view, [&](int64_t i) { return Held(root, i); });
    }
  }

  Communicator& group_;
  Device& device_;
  Stream& stream_;
  const DType dtype_;
  CollectiveCheck* const check_;
  const int rank_, size_;
};

}  // namespace

CollectiveCheck CheckCollectives(Communicator& group, Device& device, Stream& stream) {
  CollectiveCheck check;
  Checker<float>(group, device, stream, DType::kF32, &check).All();
  Checker<double>(group, device, stream, DType::kF64, &check).All();
  Checker<float>(group, device, stream, DType::kBf16, &check).All();
  Checker<int32_t>(group, device, stream, DType::kI32, &check).All();
  Checker<int64_t>(group, device, stream, DType::kI64, &check).All();
  return check;
}

}  // namespace longspan

// Between GPUs of one machine that reach one another's memory (CUDA IPC), for which every rank opens a stage to the
// others. What is small goes by one kernel (peer_message.h), in some microseconds.
//
// What is large goes over NVLink by the copy engines (the copies within a GPU, to and from the stage, take its
// multiprocessors, as all such copies do): to send, a rank waits until its slot
// for the other was read, copies what that shall have there and raises the other's flag `filled`; to receive, it waits
// for that flag, copies from the slot and raises the sender's flag `read`. Whoever waits for a flag takes
// it down, all in the order of the stream. Nothing depends on how often this was done, so that a graph may repeat it
// and other calls may come between.
#include <cudaTypedefs.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <exception>
#include <fstream>
#include <thread>

#include "parallel/comm/gpu_links.h"
#include "parallel/comm/peer_message.h"
#include "parallel/comm/texts.h"
#include "parallel/comm/transfer_memory.h"
#include "runtime/error.h"
#include "runtime/gpu.h"
#include "runtime/memory.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

constexpr int kMaxRanks = PeerMessages::kMost + 1;
constexpr int64_t kAlign = PeerStage::kAlign;  // of what is copied
static_assert(PeerMessage::kSlotBytes == PeerStage::kSmall);

// At the beginning of a rank's stage; what waits and what is raised, by rank of the group.
struct Flags {
  uint32_t raised;                                    // 1, from which flags are raised; 0 when this rank has aborted
  uint32_t aborted;                                   // 0, or 1 then
  uint32_t filled[kMaxRanks];                         // by that rank: its slot for this one
  uint32_t read[kMaxRanks];                           // by that rank: this one's slot for it
  uint32_t arrived[kMaxRanks][PeerMessage::kChunks];  // from that rank
  uint32_t taken[kMaxRanks][PeerMessage::kChunks];    // by that rank
};
// Nothing has arrived, all may be sent.
Flags AtFirst() {
  Flags flags{};
  flags.raised = 1;
  std::fill(std::begin(flags.read), std::end(flags.read), 1);
  std::fill_n(&flags.taken[0][0], kMaxRanks * PeerMessage::kChunks, 1);
  return flags;
}
static_assert(sizeof(Flags) <= PeerStage::kFlags);

// What a rank tells the others.
struct Card {
  std::array<char, 64> machine;
  cudaIpcMemHandle_t stage;
  bool exported;
};

// One running system, whatever containers it has.
std::array<char, 64> Machine() {
  std::array<char, 64> id{};
  std::ifstream("/proc/sys/kernel/random/boot_id").read(id.data(), id.size() - 1);
  return id;
}

// The driver's function, asked for at run time: nothing links the driver's library.
PFN_cuStreamBatchMemOp_v11070 BatchMemOp() {
  static const auto function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuStreamBatchMemOp", &found, 11070, cudaEnableDefault, &result);
    return status == cudaSuccess && result == cudaDriverEntryPointSuccess ? found : nullptr;
  }();
  return reinterpret_cast<PFN_cuStreamBatchMemOp_v11070>(function);
}

// The waits of a stream for several flags.
class Waits {
 public:
  void Add(uint32_t* flag) {
    CUstreamBatchMemOpParams wait{}, lower{};
    wait.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    wait.waitValue.address = reinterpret_cast<CUdeviceptr>(flag);
    wait.waitValue.value = 1;
    wait.waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    lower.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    lower.writeValue.address = reinterpret_cast<CUdeviceptr>(flag);
    lower.writeValue.value = 0;
    lower.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
    operations_.insert(operations_.end(), {wait, lower});
  }
  void Enqueue(cudaStream_t stream, const CommCall& call) {
    if (operations_.empty()) return;
    const CUresult result =
        BatchMemOp()(stream, static_cast<unsigned>(operations_.size()), operations_.data(), /*flags=*/0);
    LS_CHECK(result == CUDA_SUCCESS, "{}: waiting for flags of other GPUs: CUDA error {}", call.Text(),
             static_cast<int>(result));
  }

 private:
  std::vector<CUstreamBatchMemOpParams> operations_;
};

class PeerLinks final : public GpuLinks {
 public:
  // Without links as yet.
  PeerLinks(Communicator& host, Device& device)
      : host_(host), layout_(host.size()), stage_(device, layout_.bytes, "transfers") {
    const Flags flags = AtFirst();
    const auto stream = device.MakeStream("bootstrap");
    CudaCheck(cudaMemcpyAsync(stage_.data(), &flags, sizeof(flags), cudaMemcpyHostToDevice, CudaStream(*stream)),
              "comm: flags");
    stream->Synchronize();
    CudaCheck(cudaGetDevice(&gpu_), "comm");
  }
  ~PeerLinks() override {
    if (entered_) LivingLinks::Get().Leave(this);
    if (aborted_ || std::uncaught_exceptions() > exceptions_) {
      // Its memory stays, for others may be reading from it. They do not wait here for a rank that fails.
      [[maybe_unused]] const auto* const kept = new Buffer(std::move(stage_));
      return;
    }
    AwaitReaders();
    host_.Barrier();
    for (int rank = 0; rank < std::ssize(stages_); ++rank) {
      if (rank != host_.rank() && stages_[rank]) cudaIpcCloseMemHandle(stages_[rank]);
    }
    host_.Barrier();
  }

  // "" when this rank reaches all others; else why not.
  std::string Open() {
    Card own{};
    own.machine = Machine();
    own.exported = cudaIpcGetMemHandle(&own.stage, stage_.data()) == cudaSuccess;
    cudaGetLastError();
    std::vector<Card> cards(host_.size());
    const auto host_stream = MakeCpuDevice()->MakeStream("bootstrap");
    const int64_t bytes = sizeof(Card);
    host_.AllGather(*host_stream, HostView(reinterpret_cast<uint8_t*>(&own), {bytes}),
                    HostView(reinterpret_cast<uint8_t*>(cards.data()), {host_.size() * bytes}));
    host_stream->Synchronize();
    stages_.assign(host_.size(), nullptr);
    stages_[host_.rank()] = stage_.data();
    for (int peer = 0; peer < host_.size(); ++peer) {
      if (peer == host_.rank()) continue;
      if (cards[peer].machine != own.machine) return fmt::format("rank {} is on another machine", peer);
      if (!cards[peer].exported) return fmt::format("rank {} cannot export memory (CUDA IPC)", peer);
      const cudaError_t status =
          cudaIpcOpenMemHandle(&stages_[peer], cards[peer].stage, cudaIpcMemLazyEnablePeerAccess);
      if (status != cudaSuccess) {
        cudaGetLastError();  // no later call's
        stages_[peer] = nullptr;
        return fmt::format("memory of rank {}: {}", peer, cudaGetErrorString(status));
      }
    }
    return BatchMemOp() ? "" : "the driver has no cuStreamBatchMemOp";
  }
  void Enter() {
    LivingLinks::Get().Enter(this);
    entered_ = true;
  }

  std::string name() const override { return "peer memory"; }

  void Exchange(cudaStream_t stream, const CommCall& call, const Messages& sends, const Messages& receives) override {
    PeerMessages small{};
    small.aborted = &FlagsOf(call.rank)->aborted;
    std::vector<std::vector<Filling>> out(call.size), in(call.size);
    size_t rounds = 0;
    for (int step = 1; step < call.size; ++step) {
      const int peer = (call.rank + step) % call.size;
      if (!small.sends[step - 1].Fill(sends[peer])) out[peer] = Fillings(sends[peer]);
      if (!small.receives[step - 1].Fill(receives[peer])) in[peer] = Fillings(receives[peer]);
      rounds = std::max({rounds, out[peer].size(), in[peer].size()});
      Address(call.rank, peer, &small.sends[step - 1]);
      Address(peer, call.rank, &small.receives[step - 1]);
    }
    ExchangeMessages(stream, small, call.size - 1);
    const auto copy = [&](void* to, const void* from, int64_t bytes) {
      CudaCheck(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), call.name);
    };
    // From the next rank on: no two turn to the same one first.
    const auto peers = [&](const auto& with, size_t round, const auto& work) {
      for (int step = 1; step < call.size; ++step) {
        const int peer = (call.rank + step) % call.size;
        if (round < with[peer].size()) work(peer, with[peer][round]);
      }
    };
    for (size_t round = 0; round < rounds; ++round) {
      Waits read, filled;
      peers(out, round, [&](int peer, const Filling&) { read.Add(&FlagsOf(call.rank)->read[peer]); });
      read.Enqueue(stream, call);
      peers(out, round, [&](int peer, const Filling& filling) {
        char* to = Slot(call.rank, peer);
        for (const Piece& piece : filling) {
          copy(to, piece.data, piece.bytes);
          to += RoundUp(piece.bytes, kAlign);
        }
        copy(&FlagsOf(peer)->filled[call.rank], &FlagsOf(call.rank)->raised, sizeof(uint32_t));
      });
      peers(in, round, [&](int peer, const Filling&) { filled.Add(&FlagsOf(call.rank)->filled[peer]); });
      filled.Enqueue(stream, call);
      peers(in, round, [&](int peer, const Filling& filling) {
        const char* from = Slot(peer, call.rank);
        for (const Piece& piece : filling) {
          copy(piece.data, from, piece.bytes);
          from += RoundUp(piece.bytes, kAlign);
        }
        copy(&FlagsOf(peer)->read[call.rank], &FlagsOf(call.rank)->raised, sizeof(uint32_t));
      });
    }
  }

  void AllGather(cudaStream_t stream, const CommCall& call, const char* send, char* receive,
                 const std::vector<int64_t>& parts, const std::vector<int64_t>& begins) override {
    Messages sends(call.size), receives(call.size);
    for (int peer = 0; peer < call.size; ++peer) {
      if (peer == call.rank) continue;
      sends[peer] = {{const_cast<char*>(send), parts[call.rank]}};
      receives[peer] = {{receive + begins[peer], parts[peer]}};
    }
    char* const own = receive + begins[call.rank];
    if (own != send && parts[call.rank] > 0) {
      CudaCheck(cudaMemcpyAsync(own, send, parts[call.rank], cudaMemcpyDeviceToDevice, stream), call.name);
    }
    Exchange(stream, call, sends, receives);
  }

  void Broadcast(cudaStream_t stream, const CommCall& call, char* data, int64_t bytes, int root) override {
    Messages sends(call.size), receives(call.size);
    for (int peer = 0; peer < call.size; ++peer) {
      if (peer != root && call.rank == root) sends[peer] = {{data, bytes}};
    }
    if (call.rank != root) receives[root] = {{data, bytes}};
    Exchange(stream, call, sends, receives);
  }

  void Check(const CommCall& call) override { LS_CHECK(!aborted_, "{}: transfers were aborted", call.Text()); }

  // No flag is raised at another rank any more, and until the process ends whatever waits here finds its own raised:
  // one that is waited for is taken down, and the next wait may follow.
  void Abort() override {
    if (aborted_.exchange(true)) return;
    std::thread([gpu = gpu_, stage = stage_.data()] {
      Flags flags;
      std::fill_n(reinterpret_cast<uint32_t*>(&flags), sizeof(flags) / sizeof(uint32_t), 1);
      flags.raised = 0;
      cudaStream_t stream = nullptr;
      if (cudaSetDevice(gpu) != cudaSuccess) return;
      if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return;
      int64_t bytes = offsetof(Flags, filled);  // nothing may find a flag raised before this is known
      while (cudaMemcpyAsync(stage, &flags, bytes, cudaMemcpyHostToDevice, stream) == cudaSuccess &&
             cudaStreamSynchronize(stream) == cudaSuccess) {
        bytes = sizeof(flags);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }).detach();
  }
  std::string Wrong() override { return ""; }

 private:
  using Filling = std::vector<Piece>;  // of a slot, one piece behind another

  void Address(int from, int to, PeerMessage* message) const {
    message->slot = SmallSlot(to, from);
    message->arrived = FlagsOf(to)->arrived[from];
    message->taken = FlagsOf(from)->taken[to];
  }

  // Until the others have read all that this rank sent, and it all that they sent: then the flags are as at first.
  void AwaitReaders() const {
    cudaStream_t stream = nullptr;
    if (cudaSetDevice(gpu_) != cudaSuccess) return;
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return;
    const Flags first = AtFirst();
    Flags flags;
    while (cudaMemcpyAsync(&flags, stage_.data(), sizeof(flags), cudaMemcpyDeviceToHost, stream) == cudaSuccess &&
           cudaStreamSynchronize(stream) == cudaSuccess && std::memcmp(&flags, &first, sizeof(flags)) != 0 &&
           !aborted_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    cudaStreamDestroy(stream);
  }

  // Both ends of a message come to the same.
  std::vector<Filling> Fillings(const std::vector<Piece>& pieces) const {
    std::vector<Filling> fillings;
    int64_t left = 0;
    for (Piece piece : pieces) {
      while (piece.bytes > 0) {
        if (left == 0) {
          fillings.emplace_back();
          left = layout_.slot;
        }
        const int64_t bytes = std::min(piece.bytes, left);
        fillings.back().push_back({piece.data, bytes});
        piece = {piece.data + bytes, piece.bytes - bytes};
        left -= RoundUp(bytes, kAlign);
      }
    }
    return fillings;
  }
  Flags* FlagsOf(int rank) const { return static_cast<Flags*>(stages_[rank]); }
  // In the stage of a rank, for another.
  char* SmallSlot(int of, int other) const {
    return static_cast<char*>(stages_[of]) + PeerStage::kFlags + PeerStage::kSmall * Index(of, other);
  }
  char* Slot(int of, int other) const {
    return static_cast<char*>(stages_[of]) + PeerStage::kFlags + PeerStage::kSmall * (host_.size() - 1) +
           layout_.slot * Index(of, other);
  }
  static int Index(int of, int other) { return other < of ? other : other - 1; }  // among the others

  Communicator& host_;
  const PeerStage layout_;
  Buffer stage_;
  std::vector<void*> stages_;  // of all ranks, as this process reaches them
  int gpu_ = 0;
  bool entered_ = false;
  std::atomic<bool> aborted_ = false;
  const int exceptions_ = std::uncaught_exceptions();
};

}  // namespace

std::unique_ptr<GpuLinks> MakePeerLinks(Communicator& host, Device& device, std::string* why) {
  if (host.size() > kMaxRanks) {
    *why = fmt::format("{} ranks, expected at most {}", host.size(), kMaxRanks);
    return nullptr;
  }
  auto links = std::make_unique<PeerLinks>(host, device);
  for (const std::string& reason : GatherTexts(host, links->Open())) {
    if (why->empty()) *why = reason;
  }
  if (!why->empty()) return nullptr;
  links->Enter();
  return links;
}

}  // namespace longspan

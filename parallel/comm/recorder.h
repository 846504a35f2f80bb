// The flight recorder: the last transfers of this process, and what its host is at, in memory that others can read when
// the process hangs or is gone (launch/job/watchdog.h).
//
// A transfer is written down where its communicator numbers it (checked_comm.h), into a ring in a file of shared
// memory: without locks, allocations or system calls. Without a file nothing is written.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/tensor.h"

namespace longspan {

// What the host works on: each has its own limit of how long one rank may keep others waiting. A rank enters and leaves
// them in the order of all ranks; those but kStep begin and end with transfers of all.
enum class HostPhase : int32_t { kLoad, kStep, kEvaluate, kSave, kConnect };

// The layout of the file. A program reads only those of its own build.
struct FlightRing {
  static constexpr int kRecords = 2048, kGroups = 128, kText = 20;
  using Text = std::array<char, kText>;

  struct Record {
    std::atomic<int64_t> number = 0;  // of the record, from 1; 0 while it is being written
    int64_t sequence = 0;             // of the call, in its group
    int64_t received = 0;             // bytes that the call brings to this rank
    int64_t common = 0;               // bytes that all ranks of the call give alike; -1: each its own
    int32_t group = 0;                // of `groups`
    int32_t layer = -1;
    int32_t peer = -1;    // in the group, of a pair's message: `sequence` counts the pair's. -1: a call of all ranks
    double enqueued = 0;  // WallSeconds
    std::atomic<double> started, done;  // the same; 0: not yet, or not known
    Text operation{}, stage{};
    DType dtype = DType::kU8;
    uint8_t pass = 0;
  };
  // A communicator of several ranks. Its ranks have `id` and `instance` (of that id) alike.
  struct Group {
    uint32_t id = 0;
    int32_t instance = 0;
    int32_t size = 0, rank = 0;
    bool device = false;               // its transfers are done by a GPU: they count as arrived when they are enqueued
    std::atomic<int64_t> arrived = 0;  // sequence of the last call of all its ranks that this rank entered
  };

  int32_t rank = 0, size = 0;
  int32_t pid = 0;
  uint64_t pid_space = 0;  // in which `pid` is a process (PidSpace)
  std::array<char, 64> node{};
  std::atomic<HostPhase> phase = HostPhase::kLoad;
  std::atomic<double> phase_began = 0;
  std::atomic<int64_t> step = 0;
  std::atomic<int32_t> alarm = 0;     // this rank has met a stall
  std::atomic<int32_t> finished = 0;  // it needs nobody any more
  std::atomic<int32_t> groups_used = 0;
  std::atomic<int64_t> newest = 0;  // number of the last record
  std::array<Group, kGroups> groups;
  std::array<Record, kRecords> records;
};

// Two processes have it alike when they see each other's by their numbers: in one container, say.
uint64_t PidSpace();

class FlightRecorder {
 public:
  static FlightRecorder& Get();  // of this process

  // From now on writes to a new file. Throws Error (io) where it cannot be made. What communicators did before is not
  // in it.
  void Open(const std::string& path, int rank, int size, const std::string& node);
  void Close();  // and removes the file
  FlightRing* ring() const { return ring_; }

  void Enter(HostPhase phase);
  void SetStep(int64_t step);

  // A group of ranks that will transfer; -1 where nothing is recorded.
  int AddGroup(uint32_t id, int size, int rank, bool device);
  struct Transfer {
    const char* operation;
    int64_t sequence, received, common;
    DType dtype;
    int peer = -1;
  };
  // Returns the record's number, 0 where there is none. The calling thread's place (runtime/place.h) is noted.
  int64_t Enqueue(int group, const Transfer& transfer);
  void Start(int64_t number);
  void Done(int64_t number);
  // And the calls of its group before it. From another thread than the one that enqueues.
  void DoneThrough(int64_t number);

 private:
  FlightRing::Record* Find(int64_t number);

  FlightRing* ring_ = nullptr;
  std::string path_;
};

// The calling thread transfers from here until this goes, unless an exception passes.
class [[nodiscard]] Transferring {
 public:
  explicit Transferring(int64_t number);
  ~Transferring();
  Transferring(const Transferring&) = delete;
  Transferring& operator=(const Transferring&) = delete;

 private:
  const int64_t number_;
  const int exceptions_;
};

// The host is in `phase` until this goes, then where it was.
class [[nodiscard]] InPhase {
 public:
  explicit InPhase(HostPhase phase);
  ~InPhase();
  InPhase(const InPhase&) = delete;
  InPhase& operator=(const InPhase&) = delete;

 private:
  HostPhase before_ = HostPhase::kLoad;
};

}  // namespace longspan

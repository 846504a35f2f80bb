#include "parallel/comm/recorder.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>

#include "runtime/error.h"
#include "runtime/place.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

template <size_t N>
void Copy(std::string_view text, std::array<char, N>* to) {
  const size_t size = std::min(text.size(), N - 1);
  std::copy_n(text.data(), size, to->data());
  (*to)[size] = 0;
}

}  // namespace

uint64_t PidSpace() {
  struct stat status {};
  return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

FlightRecorder& FlightRecorder::Get() {
  static FlightRecorder recorder;
  return recorder;
}

void FlightRecorder::Open(const std::string& path, int rank, int size, const std::string& node) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  // All of it is there, or none: writing to a file that has no room would end the process.
  const int full = file < 0 ? errno : posix_fallocate(file, 0, sizeof(FlightRing));
  void* const memory =
      full != 0 ? MAP_FAILED : mmap(nullptr, sizeof(FlightRing), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  if (memory == MAP_FAILED) {
    if (file >= 0) unlink(path.c_str());
    Fail(ExitCode::kIo, "{}: cannot be made, {} bytes: {}", path, sizeof(FlightRing),
         std::strerror(full != 0 ? full : errno));
  }
  auto* const ring = new (memory) FlightRing;
  ring->rank = rank;
  ring->size = size;
  ring->pid = getpid();
  ring->pid_space = PidSpace();
  Copy(node, &ring->node);
  ring->phase_began = WallSeconds();
  path_ = path;
  ring_ = ring;
}

void FlightRecorder::Close() {
  if (!ring_) return;
  ring_->finished = 1;
  unlink(path_.c_str());
  munmap(ring_, sizeof(FlightRing));
  ring_ = nullptr;
}

void FlightRecorder::Enter(HostPhase phase) {
  if (!ring_) return;
  ring_->phase_began = WallSeconds();
  ring_->phase = phase;
}

void FlightRecorder::SetStep(int64_t step) {
  if (!ring_) return;
  ring_->step = step;
  Enter(HostPhase::kStep);
}

int FlightRecorder::AddGroup(uint32_t id, int size, int rank, bool device) {
  if (!ring_ || ring_->groups_used == FlightRing::kGroups) return -1;
  const int used = ring_->groups_used;
  FlightRing::Group& group = ring_->groups[used];
  group.id = id;
  group.instance = static_cast<int32_t>(
      std::count_if(ring_->groups.begin(), ring_->groups.begin() + used,
                    [&](const FlightRing::Group& other) { return other.id == id && other.device == device; }));
  group.size = size;
  group.rank = rank;
  group.device = device;
  ring_->groups_used.store(used + 1, std::memory_order_release);
  return used;
}

int64_t FlightRecorder::Enqueue(int group, const Transfer& transfer) {
  if (!ring_ || group < 0) return 0;
  const int64_t number = ring_->newest.load(std::memory_order_relaxed) + 1;
  FlightRing::Record& record = ring_->records[number % FlightRing::kRecords];
  record.number.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  const Place& place = CurrentPlace();
  record.sequence = transfer.sequence;
  record.received = transfer.received;
  record.common = transfer.common;
  record.group = group;
  record.layer = place.layer;
  record.peer = transfer.peer;
  record.enqueued = WallSeconds();
  record.started.store(0, std::memory_order_relaxed);
  record.done.store(0, std::memory_order_relaxed);
  Copy(transfer.operation, &record.operation);
  Copy(place.stage, &record.stage);
  record.dtype = transfer.dtype;
  record.pass = static_cast<uint8_t>(place.pass);
  record.number.store(number, std::memory_order_release);
  ring_->newest.store(number, std::memory_order_release);
  FlightRing::Group& in = ring_->groups[group];
  if (in.device && transfer.peer < 0) in.arrived.store(transfer.sequence, std::memory_order_release);
  return number;
}

// One that was overwritten meanwhile is not known any more.
FlightRing::Record* FlightRecorder::Find(int64_t number) {
  if (!ring_ || number == 0) return nullptr;
  FlightRing::Record& record = ring_->records[number % FlightRing::kRecords];
  return record.number.load(std::memory_order_relaxed) == number ? &record : nullptr;
}

void FlightRecorder::Start(int64_t number) {
  FlightRing::Record* const record = Find(number);
  if (!record) return;
  record->started.store(WallSeconds(), std::memory_order_release);
  if (record->peer < 0) ring_->groups[record->group].arrived.store(record->sequence, std::memory_order_release);
}

void FlightRecorder::Done(int64_t number) {
  FlightRing::Record* const record = Find(number);
  if (record) record->done.store(WallSeconds(), std::memory_order_release);
}

void FlightRecorder::DoneThrough(int64_t number) {
  const FlightRing::Record* const last = Find(number);
  if (!last) return;
  const int32_t group = last->group;
  const double now = WallSeconds();
  // Not as far as the records that are written next.
  const int64_t least = number - FlightRing::kRecords / 2;
  for (FlightRing::Record* record = Find(number); record && number > least; record = Find(--number)) {
    if (record->group == group && record->done.load(std::memory_order_relaxed) == 0) {
      record->done.store(now, std::memory_order_release);
    }
  }
}

Transferring::Transferring(int64_t number) : number_(number), exceptions_(std::uncaught_exceptions()) {
  FlightRecorder::Get().Start(number_);
}

Transferring::~Transferring() {
  if (std::uncaught_exceptions() == exceptions_) FlightRecorder::Get().Done(number_);
}

InPhase::InPhase(HostPhase phase) {
  const FlightRing* const ring = FlightRecorder::Get().ring();
  if (ring) before_ = ring->phase;
  FlightRecorder::Get().Enter(phase);
}

InPhase::~InPhase() { FlightRecorder::Get().Enter(before_); }

}  // namespace longspan

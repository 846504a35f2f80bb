#include "launch/job/watchdog.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <mpi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "launch/job/device_poll.h"
#include "launch/job/native_stack.h"
#include "launch/job/rank_report.h"
#include "launch/job/verdict.h"
#include "launch/job/world.h"
#include "parallel/comm/comm.h"
#include "parallel/comm/gpu_comm.h"
#include "parallel/comm/nccl.h"
#include "parallel/comm/recorder.h"
#include "parallel/comm/texts.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

constexpr const char* kShared = "/dev/shm";
constexpr const char* kPrefix = "longspan-watch-";
constexpr const char* kAlarm = "/.alarm";
constexpr const char* kVerdict = "/verdict.txt";
constexpr double kTick = 0.1;           // seconds between looks
constexpr double kProxySeconds = 0.5;   // after which others write for a rank of their node
constexpr double kGatherSeconds = 1.2;  // after which ranks of which there is no word are passed over
constexpr double kFailedSeconds = 2;    // in which a rank that failed should have ended the job itself
constexpr double kEndSeconds = 3;       // in which the launcher should have ended all

void Sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Another rank of this node.
struct Peer {
  int rank;
  const FlightRing* ring;
  int process;  // descriptor that becomes readable when it ends; -1 where the system has none
};

const FlightRing* MapRing(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0) return nullptr;
  struct stat status {};
  const bool whole = fstat(file, &status) == 0 && status.st_size == sizeof(FlightRing);
  void* const memory = whole ? mmap(nullptr, sizeof(FlightRing), PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  return memory == MAP_FAILED ? nullptr : static_cast<const FlightRing*>(memory);
}

// What jobs left that were killed as a whole.
void RemoveRemains() {
  std::error_code error;
  for (const auto& folder : fs::directory_iterator(kShared, error)) {
    if (!folder.path().filename().string().starts_with(kPrefix)) continue;
    int rings = 0, alive = 0;
    for (const auto& file : fs::directory_iterator(folder.path(), error)) {
      const FlightRing* const ring = MapRing(file.path());
      if (!ring) {  // one of another build is not known to be dead
        alive += file.path().filename().string().starts_with("rank") ? 1 : 0;
        continue;
      }
      ++rings;
      if (ring->pid_space != PidSpace() || kill(ring->pid, 0) == 0 || errno != ESRCH) ++alive;
      munmap(const_cast<FlightRing*>(ring), sizeof(FlightRing));
    }
    // A folder without rings may be of a job that begins.
    const auto age = fs::file_time_type::clock::now() - fs::last_write_time(folder.path(), error);
    if (alive == 0 && (rings > 0 || age > std::chrono::minutes(1))) fs::remove_all(folder.path(), error);
  }
}

std::string RandomId() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

// Appears whole; not for sure on the disk, for which nobody waits. What cannot be written is missing.
void WriteText(const std::string& path, const std::string& text) {
  const std::string partial = fmt::format("{}.{}", path, getpid());
  std::ofstream(partial, std::ios::binary) << text;
  std::error_code error;
  fs::rename(partial, path, error);
}

}  // namespace

class Watchdog::Guard {
 public:
  explicit Guard(const CommConfig& limits) : limits_(limits) {
    const auto world = MakeMpiWorld();
    rank_ = world->rank();
    size_ = world->size();
    RemoveRemains();
    id_ = GatherTexts(*world, RandomId())[0];
    shared_ = fmt::format("{}/{}{}", kShared, kPrefix, id_);
    std::error_code error;
    fs::create_directory(shared_, error);
    fs::permissions(shared_, fs::perms::owner_all, error);
    try {
      FlightRecorder::Get().Open(RingPath(rank_), rank_, size_, NodeName());
    } catch (const Error& failure) {
      fmt::print(stderr, "warning: no watchdog on this rank: {}\n", failure.what());
    }
    nodes_ = GatherTexts(*world, NodeName());  // and all rings are there
    for (int rank = 0; rank < size_; ++rank) {
      const FlightRing* const ring = rank == rank_ ? nullptr : MapRing(RingPath(rank));
      if (ring && ring->pid_space == PidSpace())
        peers_.push_back({rank, ring, static_cast<int>(syscall(SYS_pidfd_open, ring->pid, 0))});
    }
    if (!FlightRecorder::Get().ring()) return;
    PrepareStacks();
    device_ = std::make_unique<DevicePoll>(PollTransfers);
    thread_ = std::thread([this] { Watch(); });
  }

  ~Guard() {
    if (thread_.joinable()) {
      if (std::uncaught_exceptions() > exceptions_) AddToError(Disagreement(Known()));
      device_->End();  // which is still watched
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = write(end_, &one, sizeof(one));
      thread_.join();
    }
    FlightRecorder::Get().Close();
    close(end_);
    for (const Peer& peer : peers_) {
      if (peer.process >= 0) close(peer.process);
      munmap(const_cast<FlightRing*>(peer.ring), sizeof(FlightRing));
    }
    rmdir(shared_.c_str());  // the last of a node
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  void SetFolder(const std::string& folder) {
    const std::lock_guard lock(mutex_);
    folder_ = folder;
  }

 private:
  std::string RingPath(int rank) const { return fmt::format("{}/rank{:05}", shared_, rank); }
  bool across_nodes() const { return std::ssize(peers_) + 1 < size_; }
  // In the run's folder; "" as long as it is not known.
  std::string Archive() {
    const std::lock_guard lock(mutex_);
    return folder_.empty() ? "" : fmt::format("{}/stall-{}", folder_, id_);
  }
  // Where ranks leave each other what they know.
  std::string Meeting() {
    const std::string archive = Archive();
    return across_nodes() && !archive.empty() ? archive : shared_;
  }
  static FlightRing& ring() { return *FlightRecorder::Get().ring(); }

  // The limit of what the host is at, and the key that sets it.
  std::pair<double, const char*> Limit() const {
    switch (ring().phase) {
      case HostPhase::kLoad:
        return {limits_.load_timeout, "comm.load_timeout"};
      case HostPhase::kEvaluate:
        return {limits_.evaluation_timeout, "comm.evaluation_timeout"};
      case HostPhase::kSave:
        return {limits_.save_timeout, "comm.save_timeout"};
      case HostPhase::kStep:
      case HostPhase::kConnect:
        break;
    }
    return {limits_.timeout, "comm.timeout"};
  }

  std::string LimitText() const {
    const auto [limit, key] = Limit();
    return fmt::format("{} = {:g}", key, limit);
  }

  void Watch() {
    double last = WallSeconds();
    while (!Ended(kTick)) {
      const double now = WallSeconds();
      // Longer than that this process was itself stopped, or starved.
      const double passed = std::min(now - last, 3 * kTick);
      last = now;
      const std::string failure = device_->failure();
      failed_ = failure.empty() ? 0 : failed_ + passed;
      if (const Peer* const lost = Lost()) {
        SayLost(*lost);
      } else if (failed_ > kFailedSeconds) {
        Convict(failure);
      } else if (Alarmed()) {
        Convict(Alarm());
      } else if (Stalled(passed)) {
        Convict(LimitText());
      }
    }
  }

  // Waits; true when the watch is over. Sooner back when the process of a peer ends.
  bool Ended(double seconds) {
    std::vector<pollfd> waits = {{end_, POLLIN, 0}};
    if (!looked_) {
      for (const Peer& peer : peers_) {
        if (peer.process >= 0) waits.push_back({peer.process, POLLIN, 0});
      }
    }
    poll(waits.data(), waits.size(), static_cast<int>(1000 * seconds));
    return (waits[0].revents & POLLIN) != 0;
  }

  static bool HasEnded(const Peer& peer) {
    pollfd wait = {peer.process, POLLIN, 0};
    return peer.process >= 0 && poll(&wait, 1, 0) > 0 && (wait.revents & POLLIN) != 0;
  }

  // A peer whose process ended though it was needed. When several end, the launcher ends the job: others speak, or
  // none.
  const Peer* Lost() {
    const auto lost = std::find_if(peers_.begin(), peers_.end(), [](const Peer& peer) { return HasEnded(peer); });
    if (lost == peers_.end() || looked_) return nullptr;
    looked_ = true;
    Sleep(0.25);
    const bool orderly =
        std::any_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.ring->finished != 0; });
    return orderly ? nullptr : &*lost;
  }

  bool Alarmed() {
    if (std::any_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.ring->alarm != 0; })) return true;
    std::error_code error;
    return across_nodes() && idle_ > 1 && fs::exists(Meeting() + kAlarm, error);
  }
  // What the rank that raised it found.
  std::string Alarm() {
    std::ifstream file(Meeting() + kAlarm);
    std::string reason;
    std::getline(file, reason);
    return reason.empty() ? LimitText() : reason;  // it is still being written
  }

  // `passed`: seconds since the last call.
  bool Stalled(double passed) {
    const int64_t newest = ring().newest.load(std::memory_order_acquire);
    oldest_ = std::max({oldest_, newest - FlightRing::kRecords + 1, int64_t{1}});
    const int64_t before = oldest_;
    while (oldest_ <= newest && ring().records[oldest_ % FlightRing::kRecords].done.load() > 0) ++oldest_;
    // Work on a CPU may be enqueued long before it begins: only a transfer that was entered waits for others.
    bool waits = false;
    if (oldest_ <= newest) {
      const FlightRing::Record& record = ring().records[oldest_ % FlightRing::kRecords];
      waits = record.started.load() > 0 || ring().groups[record.group].device;
    }
    const bool moves = newest != newest_ || oldest_ != before || !waits;
    if (newest != newest_ || oldest_ != before) idle_ = 0;
    newest_ = newest;
    idle_ += passed;
    waited_ = moves ? 0 : waited_ + passed;
    const double limit = Limit().first;
    // What runs as a CUDA graph is not recorded: then the host waits for its GPU, and nothing is enqueued any more.
    const int groups = ring().groups_used;
    const bool on_gpu = std::any_of(ring().groups.begin(), ring().groups.begin() + groups,
                                    [](const FlightRing::Group& group) { return group.device; });
    const double silent = on_gpu && ring().phase == HostPhase::kStep ? idle_ : 0;
    // Nor is it known what is done when the driver does not answer.
    const double mute = std::min(idle_, device_->silent_seconds());
    return limit > 0 && std::max({waited_, silent, mute}) > limit;
  }

  // What this rank knows of itself.
  RankReport Own() const {
    RankReport report = ReadRing(ring());
    report.driver_silent = device_->silent_seconds();
    report.threads = ThreadStacks();
    return report;
  }
  static RankReport Of(const Peer& peer) {
    RankReport report = ReadRing(*peer.ring);
    AddState(&report);
    return report;
  }
  // What is known on this node.
  std::vector<std::optional<RankReport>> Known() const {
    std::vector<std::optional<RankReport>> ranks(size_);
    for (const Peer& peer : peers_) ranks[peer.rank] = Of(peer);
    ranks[rank_] = ReadRing(ring());
    return ranks;
  }
  static std::string PathOf(const std::string& meeting, int rank) {
    return fmt::format("{}/rank{:05}.json", meeting, rank);
  }
  static void Save(const std::string& meeting, const RankReport& report, int by) {
    WriteText(PathOf(meeting, report.rank), SavedText(report, by));
  }

  // Gathers what all ranks know, and ends the job. `reason`: what it was found by.
  [[noreturn]] void Convict(const std::string& reason) {
    const double begin = WallSeconds();
    const std::string meeting = Meeting();
    std::error_code error;
    if (!fs::exists(shared_, error)) End(ExitCode::kStalled, /*first=*/false);  // all is said
    fs::create_directories(meeting, error);
    if (!Alarmed()) WriteText(meeting + kAlarm, reason);
    ring().alarm = 1;
    Save(meeting, Own(), rank_);
    std::vector<std::optional<SavedReport>> known(size_);
    const auto look = [&](int rank) {
      if (!known[rank]) known[rank] = LoadReport(PathOf(meeting, rank));
      return known[rank].has_value();
    };
    const auto speaks = [&](int rank) { return look(rank) && known[rank]->by == rank; };
    for (;; Sleep(0.02)) {
      const double passed = WallSeconds() - begin;
      if (fs::exists(meeting + kVerdict, error)) End(ExitCode::kStalled, /*first=*/false);
      if (passed > kProxySeconds) WriteForPeers(meeting, look, speaks);
      // In a large job all look at one rank's, and one at all.
      int first = 0;
      while (first < rank_ && !speaks(first)) ++first;
      if (first < rank_ && passed < kEndSeconds) continue;
      int there = 0;
      for (int rank = 0; rank < size_; ++rank) there += look(rank) ? 1 : 0;
      if (there == size_ || passed > kGatherSeconds) break;
    }
    std::vector<std::optional<RankReport>> ranks;
    for (auto& each : known) ranks.push_back(each ? std::optional(std::move(each->report)) : std::nullopt);
    const std::string verdict = StallVerdict(ranks, reason, meeting != shared_ || !across_nodes(), nodes_);
    Say(verdict);
    WriteText(meeting + kVerdict, verdict + "\n");
    if (const std::string archive = Archive(); !archive.empty()) {
      SaveTexts(archive, ranks);
      WriteText(archive + kVerdict, verdict + "\n");
    }
    for (int rank = 0; rank < size_; ++rank) fs::remove(PathOf(meeting, rank), error);
    const double said = WallSeconds();
    while (WallSeconds() - said < kProxySeconds && !std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) {
             return peer.ring->finished != 0 || Of(peer).stopped;
           })) {
      Sleep(0.02);
    }
    End(ExitCode::kStalled, /*first=*/true);
  }

  // The lowest rank of a node that wrote its own report writes those of peers that did not.
  template <typename Look, typename Speaks>
  void WriteForPeers(const std::string& meeting, const Look& look, const Speaks& speaks) {
    for (const Peer& peer : peers_) {
      if (peer.rank < rank_ && speaks(peer.rank)) return;
    }
    for (const Peer& peer : peers_) {
      if (!look(peer.rank)) Save(meeting, Of(peer), rank_);
    }
  }

  static void SaveTexts(const std::string& archive, const std::vector<std::optional<RankReport>>& ranks) {
    std::error_code error;
    fs::create_directories(archive, error);
    for (const auto& report : ranks) {
      if (report) WriteText(fmt::format("{}/rank{:05}.txt", archive, report->rank), ReportText(*report));
    }
  }

  void SayLost(const Peer& lost) {
    const bool first = std::none_of(peers_.begin(), peers_.end(),
                                    [&](const Peer& peer) { return peer.rank < rank_ && !HasEnded(peer); });
    if (!first) return;  // another says it
    const std::vector<std::optional<RankReport>> ranks = Known();
    Say(LossVerdict(*ranks[lost.rank]));
    if (const std::string archive = Archive(); !archive.empty()) SaveTexts(archive, ranks);
    End(ExitCode::kRankFailed, /*first=*/true);
  }

  void Say(std::string message) {
    LeaveEndToOthers();
    if (const std::string archive = Archive(); !archive.empty()) {
      message += fmt::format("\n  the last transfers of every rank: {}/rank*.txt", archive);
    }
    // Past the streams, whose locks a thread that hangs may hold.
    message = fmt::format("error: {}{}\n", ProcessPrefix(), message);
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message.data(), message.size());
  }

  // `first`: this rank ends the job; otherwise another does.
  [[noreturn]] void End(ExitCode code, bool first) {
    LeaveEndToOthers();
    ring().finished = 1;
    std::error_code error;
    if (first || Meeting() != shared_) fs::remove_all(shared_, error);
    // None of this may keep the end waiting.
    std::thread([] { std::fflush(stdout); }).detach();
    if (first) {
      std::thread([] { AbortTransfers(); }).detach();
      Sleep(HasNccl() ? 0.3 : 0.02);
      std::thread([code] { MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code)); }).detach();
    }
    Sleep(kEndSeconds);
    // The launcher did not end them. Who is stopped does not end by itself.
    for (const Peer& peer : peers_) {
      if (Of(peer).stopped) kill(peer.ring->pid, SIGKILL);
    }
    _exit(static_cast<int>(code));
  }

  const CommConfig limits_;
  const int exceptions_ = std::uncaught_exceptions();
  int rank_ = 0, size_ = 1;
  std::string id_, shared_;
  std::vector<std::string> nodes_;  // of each rank
  std::vector<Peer> peers_;
  const int end_ = eventfd(0, EFD_CLOEXEC);
  std::mutex mutex_;
  std::string folder_;
  // Of the thread.
  int64_t oldest_ = 1, newest_ = 0;  // records: the first that may not be done, the last
  double waited_ = 0, idle_ = 0;     // seconds: in one transfer; without a new record or one done
  double failed_ = 0;                // seconds since NCCL said so
  bool looked_ = false;              // at a peer that ended
  std::unique_ptr<DevicePoll> device_;
  std::thread thread_;
};

Watchdog::Watchdog(const CommConfig& limits) {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size > 1) guard_ = std::make_unique<Guard>(limits);
}

Watchdog::~Watchdog() = default;

void Watchdog::SetFolder(const std::string& folder) {
  if (guard_) guard_->SetFolder(folder);
}

}  // namespace longspan

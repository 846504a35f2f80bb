#include "launch/report/profile_data.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <tuple>
#include <unordered_map>

#include "launch/report/profile_file.h"
#include "runtime/error.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMostRanksOfARun = 1 << 20;  // more is no profile

// Reads the entries of one rank's file, one after another.
class Reader {
 public:
  void Read(const proto::Entry& entry) {
    if (entry.has_header()) {
      Begin(entry.header());
    } else if (entry.has_name()) {
      names_[entry.name().id()] = entry.name().text();
    } else if (entry.has_site()) {
      sites_[entry.site().id()] = entry.site();
    } else if (entry.has_clock()) {
      clock_.push_back(
          {1e-9 * static_cast<double>(entry.clock().begin()), 1e-9 * static_cast<double>(entry.clock().ahead())});
      rank_.clock_error = std::max(rank_.clock_error, 1e-9 * static_cast<double>(entry.clock().error()));
    } else if (entry.has_period()) {
      Add(entry.period());
    } else if (entry.has_layers()) {
      for (const proto::Cell& cell : entry.layers().cells()) AddLayer(CellOf(cell));
    } else if (entry.has_link()) {
      const proto::Link& link = entry.link();
      rank_.links.push_back({1e-9 * static_cast<double>(link.begin()), static_cast<int>(link.peer()),
                             1e-9 * static_cast<double>(link.time()), static_cast<double>(link.bytes())});
    } else if (entry.has_gpu()) {
      Add(entry.gpu());
    } else if (entry.has_peak()) {
      rank_.peaks.assign(entry.peak().memory().begin(), entry.peak().memory().end());
    } else if (entry.has_problem()) {
      rank_.problems.push_back(entry.problem().text());
    } else if (entry.has_end()) {
      rank_.ended = true;
      Reach(1e-9 * static_cast<double>(entry.end().begin()));
    }
  }

  // With times on the clock of rank 0.
  RankProfile Take() {
    for (ProfileLink& link : rank_.links) link.begin = OnCommonClock(link.begin);
    for (ProfileGpu& gpu : rank_.gpu.list) {
      for (GpuReading* reading : {&gpu.first, &gpu.last}) reading->at = OnCommonClock(reading->at);
    }
    for (ProfilePeriod& period : rank_.periods) {
      period.begin = OnCommonClock(period.begin);
      for (ProfileTransfer& transfer : period.transfers) transfer.span.begin = OnCommonClock(transfer.span.begin);
      for (ProfileSpan& span : period.spans) span.begin = OnCommonClock(span.begin);
    }
    return std::move(rank_);
  }

 private:
  struct ClockPoint {
    double begin, ahead;
  };

  void Begin(const proto::Header& header) {
    const std::vector<ProfileSession> before = std::move(rank_.sessions);
    rank_ = {};
    rank_.rank = static_cast<int>(header.rank());
    rank_.header = header;
    rank_.sessions = before;
    rank_.sessions.push_back({.id = header.session(),
                              .next_stage = header.next_stage(),
                              .begin = header.unix_seconds(),
                              .end = header.unix_seconds(),
                              .startup = header.startup_seconds(),
                              .first_step = header.first_step(),
                              .last_step = header.first_step() - 1,
                              .step_seconds = {}});
    names_.clear();
    sites_.clear();
    clock_.clear();
    sequences_.clear();
    layers_.clear();
  }

  void Reach(double seconds) {
    if (rank_.sessions.empty()) return;
    ProfileSession& session = rank_.sessions.back();
    session.end = std::max(session.end, session.begin + seconds);
  }

  ProfileCell CellOf(const proto::Cell& from) {
    ProfileCell cell;
    cell.stage = names_[from.stage()];
    cell.pass = from.pass();
    cell.kind = from.kind();
    cell.layer = static_cast<int>(from.layer()) - 1;
    cell.count = from.count();
    cell.seconds = 1e-9 * static_cast<double>(from.time());
    cell.cpu = 1e-9 * static_cast<double>(from.cpu());
    cell.flops = from.flops();
    cell.bytes = from.bytes();
    return cell;
  }

  // To the sums of the entries before.
  void AddLayer(const ProfileCell& cell) {
    const auto [place, added] =
        layers_.try_emplace({cell.layer, cell.stage, cell.pass, cell.kind}, rank_.layers.size());
    if (added) {
      rank_.layers.push_back(cell);
      return;
    }
    ProfileCell& sum = rank_.layers[place->second];
    sum.count += cell.count;
    sum.seconds += cell.seconds;
    sum.cpu += cell.cpu;
    sum.flops += cell.flops;
    sum.bytes += cell.bytes;
  }

  ProfileSpan SpanOf(uint32_t id, int64_t begin, uint64_t time) {
    const proto::Site& site = sites_[id];
    ProfileSpan span;
    span.name = names_[site.name()];
    span.stage = names_[site.stage()];
    span.pass = site.pass();
    span.kind = site.kind();
    span.layer = site.layer();
    span.begin = 1e-9 * static_cast<double>(begin);
    span.seconds = 1e-9 * static_cast<double>(time);
    return span;
  }

  void Add(const proto::Gpu& from) {
    rank_.gpu.Add({.at = 1e-9 * static_cast<double>(from.begin()),
                   .sm_clock = static_cast<double>(from.sm_clock()),
                   .most_sm_clock = static_cast<double>(from.most_sm_clock()),
                   .memory_clock = static_cast<double>(from.memory_clock()),
                   .power = from.power(),
                   .power_limit = from.power_limit(),
                   .temperature = static_cast<double>(from.temperature()),
                   .held = from.held(),
                   .corrected = from.corrected(),
                   .uncorrected = from.uncorrected()});
  }

  void Add(const proto::Period& from) {
    ProfilePeriod period;
    period.what = from.what();
    period.step = from.step();
    period.begin = 1e-9 * static_cast<double>(from.begin());
    period.seconds = 1e-9 * static_cast<double>(from.time());
    period.cpu = 1e-9 * static_cast<double>(from.cpu());
    period.memory = static_cast<double>(from.memory());
    for (const proto::Cell& cell : from.cells()) period.cells.push_back(CellOf(cell));

    const proto::Transfers& transfers = from.transfers();
    const int count = std::min({transfers.site_size(), transfers.group_size(), transfers.sequence_size(),
                                transfers.begin_size(), transfers.time_size(), transfers.bytes_size()});
    int64_t begin = from.begin();
    for (int i = 0; i < count; ++i) {
      begin += transfers.begin(i);
      ProfileTransfer transfer;
      transfer.span = SpanOf(transfers.site(i), begin, transfers.time(i));
      transfer.group = transfers.group(i);
      transfer.sequence = sequences_[transfer.group] += transfers.sequence(i);
      transfer.bytes = static_cast<double>(transfers.bytes(i));
      if (i < transfers.far_size()) transfer.far = static_cast<double>(transfers.far(i));  // older files have none
      period.transfers.push_back(transfer);
    }
    const proto::Spans& spans = from.spans();
    begin = from.begin();
    for (int i = 0; i < std::min({spans.site_size(), spans.begin_size(), spans.time_size()}); ++i) {
      begin += spans.begin(i);
      period.spans.push_back(SpanOf(spans.site(i), begin, spans.time(i)));
    }
    Reach(period.begin + period.seconds);
    if (period.what == proto::Period::STEP && !rank_.sessions.empty()) {
      rank_.sessions.back().last_step = period.step;
      rank_.sessions.back().step_seconds.push_back(period.seconds);
    }
    rank_.Add(std::move(period));
  }

  // Seconds of this rank's steady clock, as rank 0 has them; between comparisons the difference changes evenly.
  double OnCommonClock(double seconds) const {
    const double own = rank_.header.begin() + seconds;
    if (clock_.empty()) return own;
    const auto next = std::lower_bound(clock_.begin(), clock_.end(), seconds,
                                       [](const ClockPoint& point, double at) { return point.begin < at; });
    if (next == clock_.begin()) return own + next->ahead;
    if (next == clock_.end()) return own + clock_.back().ahead;
    const ClockPoint& before = *(next - 1);
    const double part = (seconds - before.begin) / std::max(1e-9, next->begin - before.begin);
    return own + before.ahead + part * (next->ahead - before.ahead);
  }

  RankProfile rank_;
  std::unordered_map<uint32_t, std::string> names_;
  std::unordered_map<uint32_t, proto::Site> sites_;
  std::unordered_map<uint32_t, int64_t> sequences_;
  std::map<std::tuple<int, std::string, proto::Pass, proto::Kind>, size_t> layers_;  // where their sum is
  std::vector<ClockPoint> clock_;
};

// Of each transfer of the training steps: what was waiting, and whose doing.
void FindWaits(ProfileData* data) {
  std::map<std::pair<uint32_t, int64_t>, std::vector<ProfileTransfer*>> calls;
  for (RankProfile& rank : data->ranks) {
    for (ProfilePeriod& period : rank.periods) {
      for (ProfileTransfer& transfer : period.transfers) {
        calls[{transfer.group, transfer.sequence}].push_back(&transfer);
      }
    }
  }
  for (auto& [call, members] : calls) {
    std::sort(members.begin(), members.end(),
              [](const auto* a, const auto* b) { return a->span.begin < b->span.begin; });
    ProfileTransfer& last = *members.back();
    for (ProfileTransfer* member : members) {
      member->wait = std::clamp(last.span.begin - member->span.begin, 0.0, member->span.seconds);
    }
    if (members.size() > 1) last.late = last.span.begin - members[members.size() - 2]->span.begin;
  }
}

// Of the ranks themselves, once where several have the same.
void AddProblems(ProfileData* data) {
  std::map<std::string, std::vector<int>> ranks;
  for (const RankProfile& rank : data->ranks) {
    for (const std::string& problem : rank.problems) ranks[problem].push_back(rank.rank);
  }
  for (const auto& [problem, of] : ranks) {
    data->problems.push_back(fmt::format("{} {}: {}", of.size() > 1 ? "ranks" : "rank", fmt::join(of, ", "), problem));
  }
}

void PutTimeAtZero(ProfileData* data) {
  double first = 1e300;
  for (const RankProfile& rank : data->ranks) first = std::min(first, rank.header.begin());
  for (RankProfile& rank : data->ranks) {
    for (ProfileLink& link : rank.links) link.begin -= first;
    for (ProfileGpu& gpu : rank.gpu.list) {
      for (GpuReading* reading : {&gpu.first, &gpu.last}) reading->at -= first;
    }
    for (ProfilePeriod& period : rank.periods) {
      period.begin -= first;
      for (ProfileTransfer& transfer : period.transfers) transfer.span.begin -= first;
      for (ProfileSpan& span : period.spans) span.begin -= first;
    }
  }
}

}  // namespace

ProfileGpu::ProfileGpu(const GpuReading& reading)
    : first(reading),
      last(reading),
      sm_clock(reading.sm_clock),
      memory_clock(reading.memory_clock),
      power(reading.power),
      lowest(reading.sm_clock),
      temperature(reading.temperature),
      held_readings(GpuHeldBy(reading.held).empty() ? 0 : 1),
      held(reading.held) {}

void ProfileGpu::Add(const ProfileGpu& later) {
  const double share = static_cast<double>(later.readings) / static_cast<double>(readings + later.readings);
  sm_clock += share * (later.sm_clock - sm_clock);
  memory_clock += share * (later.memory_clock - memory_clock);
  power += share * (later.power - power);
  lowest = std::min(lowest, later.lowest);
  temperature = std::max(temperature, later.temperature);
  if (later.held_readings > held_readings) held = later.held;
  held_readings += later.held_readings;
  readings += later.readings;
  last = later.last;
}

void ProfileGpus::Add(const GpuReading& reading) {
  if (!list.empty() && list.back().readings < each_) {
    list.back().Add(ProfileGpu(reading));
    return;
  }
  if (list.size() == kMost) {  // pairs become one each
    for (size_t i = 0; i < kMost / 2; ++i) {
      list[i] = list[2 * i];
      list[i].Add(list[2 * i + 1]);
    }
    list.erase(list.begin() + kMost / 2, list.end());
    each_ *= 2;
  }
  list.emplace_back(reading);
}

void RankProfile::Add(ProfilePeriod period) {
  const bool step = period.what == proto::Period::STEP, seen = IsSeen(period);
  totals.seconds += period.seconds;
  totals.memory = std::max(totals.memory, period.memory);
  if (period.what == proto::Period::CHECKPOINT) totals.checkpoint += period.seconds;
  if (period.what == proto::Period::EVALUATION) totals.evaluation += period.seconds;
  if (step) {
    totals.steps += 1;
    totals.seen += seen ? 1 : 0;
    totals.last_step = period.step;
    totals.steps_seconds += period.seconds;
    for (const ProfileCell& cell : period.cells) totals.data += cell.kind == proto::WAIT ? cell.seconds : 0;
  }
  // Number 0 stays, whatever the rest is thinned to.
  const bool timeline = step && !period.spans.empty() && timelines_ < kMostTimelines;
  timelines_ += timeline ? 1 : 0;
  period.number = timeline ? 0 : numbers_[{period.what, seen}]++;
  if (period.number % each_ != 0) return;
  periods.push_back(std::move(period));
  if (periods.size() <= kMostPeriods) return;
  each_ *= 2;
  std::erase_if(periods, [this](const ProfilePeriod& kept) { return kept.number % each_ != 0; });
}

bool IsSeen(const ProfilePeriod& step) {
  return std::none_of(step.cells.begin(), step.cells.end(),
                      [](const ProfileCell& cell) { return cell.stage == "graph"; });
}

const ProfileTransfer* TransferOf(const ProfilePeriod& period, const ProfileSpan& span) {
  const auto found =
      std::find_if(period.transfers.begin(), period.transfers.end(), [&](const ProfileTransfer& transfer) {
        return transfer.span.begin == span.begin && transfer.span.name == span.name;
      });
  return found == period.transfers.end() ? nullptr : &*found;
}

const char* PassName(proto::Pass pass) {
  return pass == proto::FORWARD ? "forward" : pass == proto::BACKWARD ? "backward" : "";
}

ProfileData ReadProfiles(const std::string& run_folder) {
  ProfileData data;
  data.folder = run_folder;
  std::map<std::string, fs::path> files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(run_folder + "/profile", error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("rank") && name.ends_with(".pb")) files[name] = entry.path();
  }
  std::vector<RankProfile> found;
  for (const auto& [name, path] : files) {
    try {
      Reader reader;
      const ProfileExtent file = ReadProfileFile(path.string(), [&](const proto::Entry& entry) { reader.Read(entry); });
      RankProfile rank = reader.Take();
      const uint32_t ranks = rank.header.ranks();
      if (rank.sessions.empty() || rank.header.rank() >= ranks || ranks > kMostRanksOfARun) {
        data.problems.push_back(fmt::format("{} holds no profile", path.string()));
        continue;
      }
      if (file.torn_bytes > 0) {
        data.problems.push_back(
            fmt::format("{}: its last {} bytes are no whole entry and are left out", path.string(), file.torn_bytes));
      }
      found.push_back(std::move(rank));
    } catch (const Error& broken) {
      data.problems.emplace_back(broken.what());
    }
  }
  if (found.empty()) {
    Fail(ExitCode::kIo,
         "{}/profile: expected files rankNNNNN.pb of a run of `longspan train`, found none that can be "
         "read{}",
         run_folder, data.problems.empty() ? "" : ": " + data.problems[0]);
  }
  uint64_t newest = 0;
  for (const RankProfile& rank : found) newest = std::max(newest, rank.header.session());
  std::vector<bool> there;
  for (RankProfile& rank : found) {
    if (rank.header.session() != newest) continue;  // of a rank that the run has no longer, or that lost its file
    data.expected = static_cast<int>(rank.header.ranks());
    there.resize(std::max<size_t>(there.size(), std::max(data.expected, rank.rank + 1)), false);
    there[rank.rank] = true;
    data.clock_error = std::max(data.clock_error, rank.clock_error);
    data.ranks.push_back(std::move(rank));
  }
  for (int rank = 0; rank < data.expected; ++rank) {
    if (!there[rank]) data.problems.push_back(fmt::format("rank {} has no readable profile", rank));
  }
  AddProblems(&data);
  PutTimeAtZero(&data);
  FindWaits(&data);
  return data;
}

}  // namespace longspan

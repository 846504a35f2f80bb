// Whom a summary blames, since when and for what, on profiles made by hand: four ranks, whose steps meet in a transfer.
#include "launch/report/summary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <random>
#include <utility>

#include "launch/report/planned.h"
#include "launch/report/report.h"

namespace longspan {
namespace {

constexpr int kRanks = 4, kSteps = 60;
constexpr double kForward = 0.010, kBackward = 0.020, kMove = 0.002;

// What a rank does in a step besides.
struct Extra {
  double forward = 0, backward = 0, cpu = 0, data = 0, other = 0, move = 0;
};

// Steps of `extra(rank, step)`, with 2% of noise.
ProfileData Made(const std::function<Extra(int, int)>& extra, bool gpu = false, int steps = kSteps) {
  ProfileData data;
  data.folder = "run";
  data.expected = kRanks;
  std::mt19937 random(1);
  std::uniform_real_distribution<double> noise(0.99, 1.01);
  for (int r = 0; r < kRanks; ++r) {
    RankProfile rank;
    rank.rank = r;
    rank.header.set_gpu(gpu);
    rank.sessions.push_back({.id = 1, .begin = 0, .end = 10, .step_seconds = {}});
    data.ranks.push_back(rank);
  }
  for (int step = 1; step <= steps; ++step) {
    std::vector<double> own;
    std::vector<Extra> extras;
    for (int r = 0; r < kRanks; ++r) {
      extras.push_back(extra(r, step));
      const Extra& x = extras.back();
      own.push_back((kForward + kBackward) * noise(random) + x.forward + x.backward + x.data + x.other);
    }
    std::vector<double> sorted = own;
    std::sort(sorted.begin(), sorted.end());
    for (int r = 0; r < kRanks; ++r) {
      ProfilePeriod period;
      period.step = step;
      const double wait = sorted.back() - own[r];
      const Extra& x = extras[r];
      const double move = kMove + x.move;
      period.seconds = own[r] + wait + move;
      const double backward = own[r] - kForward - x.forward - x.data - x.other;
      period.cells = {{.stage = "window", .pass = proto::FORWARD, .seconds = kForward + x.forward, .cpu = kForward},
                      {.stage = "window", .pass = proto::BACKWARD, .seconds = backward, .cpu = kBackward + x.cpu},
                      {.stage = "data", .kind = proto::WAIT, .seconds = x.data},
                      {.stage = "reductions", .kind = proto::TRANSFER, .seconds = wait + move}};
      ProfileTransfer transfer;
      transfer.span.kind = proto::TRANSFER;
      transfer.span.stage = "reductions";
      transfer.span.seconds = wait + move;
      transfer.wait = wait;
      transfer.late = own[r] == sorted.back() ? sorted[kRanks - 1] - sorted[kRanks - 2] : 0;
      period.transfers.push_back(transfer);
      data.ranks[r].Add(period);
    }
  }
  return data;
}

TEST(Summary, NobodyIsBlamedForNoise) {
  const Summary summary = Summarize(Made([](int, int) { return Extra{}; }));
  EXPECT_TRUE(summary.stragglers.empty());
  EXPECT_EQ(summary.steps, kSteps);
  const RankRow& mean = summary.mean;
  EXPECT_NEAR(mean.work + mean.data + mean.other + mean.waiting + mean.moving, mean.step, 1e-12);
  EXPECT_NEAR(mean.moving, kMove, 1e-9);
  EXPECT_NEAR(mean.other, 0, 1e-9);
}

TEST(Summary, ChronicInOneStage) {
  const Summary summary = Summarize(Made([](int rank, int) { return Extra{.forward = rank == 2 ? 0.008 : 0}; }));
  ASSERT_EQ(summary.stragglers.size(), 1U);
  const Straggler& found = summary.stragglers[0];
  EXPECT_EQ(found.rank, 2);
  EXPECT_EQ(found.stage, "window");
  EXPECT_EQ(found.pass, proto::FORWARD);
  EXPECT_EQ(found.what, SlowClass::kHost);  // its thread did not run for longer
  EXPECT_TRUE(found.since_start && found.to_end);
  EXPECT_NEAR(found.excess, 0.008, 0.0005);
  EXPECT_NEAR(found.saving, 0.008, 0.0005);
  EXPECT_EQ(summary.stages[1].seconds.slowest, 2);
  const auto named = std::find_if(summary.costs.begin(), summary.costs.end(), [](const Finding& cost) {
    return cost.what.find("rank 2 is slow by its own doing") != std::string::npos;
  });
  EXPECT_NE(named, summary.costs.end());
}

// Heat names the rank that is slower by it, and nobody whose GPU is as hot but not slower, or slow for another reason.
TEST(Summary, ThrottledIsWhoseClocksAreHeldDownBelowOthers) {
  struct Gpu {
    double clock;
    uint64_t held;
  };
  const auto with = [](const std::vector<Gpu>& gpus, const Extra& of_rank_2) {
    ProfileData data = Made([&](int rank, int) { return rank == 2 ? of_rank_2 : Extra{}; }, /*gpu=*/true);
    for (size_t r = 0; r < gpus.size(); ++r) {
      ProfileGpus& gpu = data.ranks[r].gpu;
      gpu.Add({.at = 0.5, .sm_clock = gpus[r].clock, .held = gpus[r].held, .corrected = 5});
      gpu.Add({.at = 1.5, .sm_clock = gpus[r].clock, .held = gpus[r].held, .corrected = 5 + r});
      gpu.Add({.at = 1000, .sm_clock = 1, .held = 0});  // after the steps
    }
    double begin = 0;
    for (RankProfile& rank : data.ranks) {
      begin = 0;
      for (ProfilePeriod& step : rank.periods) step.begin = begin += 0.04;
    }
    return Summarize(data);
  };
  const Gpu good = {1980, 0}, hot = {1095, 0x48}, capped = {1700, 0x4};
  const Extra slow = {.backward = 0.015};
  const Summary heat = with({good, good, hot, good}, slow);
  ASSERT_EQ(heat.stragglers.size(), 1U);
  EXPECT_EQ(heat.stragglers[0].rank, 2);
  EXPECT_EQ(heat.stragglers[0].what, SlowClass::kThrottled);
  EXPECT_EQ(WhereOf(heat.stragglers[0]), "GPU too hot");
  ASSERT_EQ(heat.gpus.size(), 4U);
  EXPECT_EQ(heat.gpus[2].readings, 2);
  EXPECT_EQ(heat.gpus[2].sm_clock, 1095);
  EXPECT_EQ(heat.gpus[2].held, 1);
  EXPECT_EQ(heat.gpus[3].corrected, 3U);
  const Summary all_capped = with({capped, capped, capped, capped}, slow);
  ASSERT_EQ(all_capped.stragglers.size(), 1U);
  EXPECT_EQ(all_capped.stragglers[0].what, SlowClass::kCompute);
  EXPECT_EQ(with({good, good, hot, good}, {.other = 0.015}).stragglers.at(0).what, SlowClass::kHost);
  EXPECT_TRUE(with({good, good, hot, good}, {}).stragglers.empty());
  const Summary none = with({}, slow);
  EXPECT_EQ(none.stragglers.at(0).what, SlowClass::kCompute);
  EXPECT_TRUE(none.gpus.empty());
  EXPECT_EQ(ReportText(none).find("GPUs"), std::string::npos);
}

// A week of them, hot for the last quarter, is no more than an hour's.
TEST(Summary, ReadingsOfALongRunBecomeMeans) {
  constexpr int kWeek = 7 * 24 * 3600, kHot = kWeek / 4 * 3;
  RankProfile rank;
  for (int i = 0; i < kWeek; ++i) {
    const bool hot = i >= kHot;
    rank.gpu.Add({.at = static_cast<double>(i),
                  .sm_clock = i == 1234 ? 345.0
                              : hot     ? 1000.0
                                        : 2000.0,
                  .most_sm_clock = 1980,
                  .power = 600,
                  .temperature = i == 5678 ? 90.0 : 60.0,
                  .held = hot ? uint64_t{0x48} : 0,
                  .corrected = static_cast<uint64_t>(i)});
  }
  EXPECT_LE(rank.gpu.list.size(), ProfileGpus::kMost);
  EXPECT_GT(rank.gpu.list.size(), ProfileGpus::kMost / 4);
  const GpuRow all = GpuBetween(rank, 0, kWeek);
  EXPECT_EQ(all.readings, kWeek);
  EXPECT_NEAR(all.sm_clock, 1750, 0.1);
  EXPECT_NEAR(all.power, 600, 1e-6);
  EXPECT_EQ(all.lowest, 345);
  EXPECT_EQ(all.most_sm_clock, 1980);
  EXPECT_EQ(all.temperature, 90);
  EXPECT_NEAR(all.held, 0.25, 1e-9);
  EXPECT_EQ(all.held_by, GpuHeldBy(0x48));
  EXPECT_EQ(all.corrected, static_cast<uint64_t>(kWeek - 1));
  // Also where a step is shorter than the time between those that are kept.
  const GpuRow step = GpuBetween(rank, kHot + 1000, kHot + 1001);
  EXPECT_GT(step.readings, 0);
  EXPECT_EQ(step.sm_clock, 1000);
  EXPECT_EQ(step.held, 1);
  EXPECT_EQ(GpuBetween(rank, kWeek, 2 * kWeek).readings, 0);
}

// A run of any length is read into bounded memory, and says what a short one would.
TEST(Summary, StepsOfALongRunAreASample) {
  constexpr int kMany = 50000, kSince = 30000;
  const auto extra = [](int rank, int step) { return Extra{.backward = rank == 1 && step >= kSince ? 0.009 : 0}; };
  RankProfile one;
  ProfilePeriod period;
  period.cells = {{.stage = "data", .kind = proto::WAIT, .seconds = 0.25}};
  period.seconds = 1;
  for (period.step = 1; period.step <= kMany; ++period.step) {
    period.spans.resize(period.step < 3 ? 1 : 0);
    one.Add(period);
  }
  EXPECT_LE(one.periods.size(), RankProfile::kMostPeriods);
  EXPECT_GT(one.periods.size(), RankProfile::kMostPeriods / 4);
  for (const size_t i : {0, 1}) EXPECT_EQ(one.periods[i].spans.size(), 1U);  // the timeline stays
  EXPECT_EQ(one.totals.steps, kMany);
  EXPECT_NEAR(one.totals.data, 0.25 * kMany, 1e-6);

  const ProfileData data = Made(extra, /*gpu=*/true, kMany);
  for (const RankProfile& rank : data.ranks) EXPECT_LE(rank.periods.size(), RankProfile::kMostPeriods);
  const Summary summary = Summarize(data);
  EXPECT_EQ(summary.steps, kMany);
  EXPECT_EQ(summary.last_step, kMany);
  EXPECT_NEAR(summary.ledger.training, data.ranks[0].totals.steps_seconds, 1e-6);
  ASSERT_EQ(summary.stragglers.size(), 1U);
  EXPECT_EQ(summary.stragglers[0].rank, 1);
  EXPECT_NEAR(static_cast<double>(summary.stragglers[0].first_step), kSince, 64);
}

// In full detail; a save that one rank alone recorded moves none of its steps.
TEST(Summary, RanksKeepTheSameSteps) {
  const auto kept = [](bool saves) {
    RankProfile rank;
    ProfilePeriod period;
    period.spans.resize(1);
    for (period.step = 1; period.step <= 5000; ++period.step) {
      period.what = proto::Period::STEP;
      rank.Add(period);
      period.what = proto::Period::CHECKPOINT;
      if (saves && period.step == 1) rank.Add(period);
    }
    std::vector<int64_t> steps;
    for (const ProfilePeriod& one : rank.periods) {
      if (one.what == proto::Period::STEP) steps.push_back(one.step);
    }
    return steps;
  };
  EXPECT_EQ(kept(true), kept(false));
}

TEST(Summary, SinceAStepInTheBackward) {
  for (const int since : {10, 30, 50}) {
    const Summary summary = Summarize(Made([=](int rank, int step) {
      return rank == 1 && step >= since ? Extra{.backward = 0.009, .cpu = 0.009} : Extra{};
    }));
    ASSERT_EQ(summary.stragglers.size(), 1U);
    const Straggler& found = summary.stragglers[0];
    EXPECT_EQ(found.rank, 1);
    // Among the costs it is what it now is, however late it began.
    const auto cost = std::find_if(summary.costs.begin(), summary.costs.end(), [](const Finding& one) {
      return one.what.find("rank 1 is slow by its own doing since step ") != std::string::npos;
    });
    ASSERT_NE(cost, summary.costs.end());
    EXPECT_EQ(cost->seconds, found.saving);
    EXPECT_EQ(found.pass, proto::BACKWARD);
    EXPECT_EQ(found.what, SlowClass::kCompute);
    EXPECT_EQ(found.first_step, since);
    EXPECT_FALSE(found.since_start);
    EXPECT_TRUE(found.to_end);
  }
  const Summary ended =
      Summarize(Made([](int rank, int step) { return Extra{.other = rank == 1 && step <= 20 ? 0.02 : 0}; }));
  ASSERT_EQ(ended.stragglers.size(), 1U);
  EXPECT_EQ(ended.stragglers[0].last_step, 20);
  EXPECT_FALSE(ended.stragglers[0].to_end);
  EXPECT_EQ(ended.stragglers[0].what, SlowClass::kHost);
}

// Own time beyond the median rank's, in parts of that, as recorded on a machine on which other programs ran: a rank
// spins since step 30.
constexpr std::array<double, kSteps> kRecorded = {
    0.04, -0.01, -0.02, -0.05, 0.27,  -0.02, 0.12, -0.04, 0.10, 0.06, 0.00, 0.08, 0.01, -0.11, 0.00,
    0.00, 0.12,  0.00,  0.02,  -0.01, 0.00,  0.04, 0.08,  0.01, 0.05, 0.00, 0.00, 0.00, 0.00,  0.47,
    0.37, 0.32,  0.37,  0.39,  0.49,  0.42,  0.43, 0.58,  0.59, 0.31, 0.51, 0.12, 1.06, 0.40,  0.41,
    0.57, 2.20,  0.40,  2.67,  0.52,  0.47,  0.28, 0.44,  0.38, 0.43, 0.56, 0.53, 0.39, 0.38,  0.49};

TEST(Summary, SinceAStepAmongOtherPrograms) {
  for (int steps = 36; steps <= kSteps; ++steps) {
    const Summary summary = Summarize(Made(
        [](int rank, int step) {
          return Extra{.backward = rank == 2 ? kRecorded.at(step - 1) * (kForward + kBackward) : 0};
        },
        /*gpu=*/false, steps));
    ASSERT_EQ(summary.stragglers.size(), 1U) << steps;
    EXPECT_EQ(summary.stragglers[0].rank, 2) << steps;
    EXPECT_EQ(summary.stragglers[0].first_step, 30) << steps;
    EXPECT_TRUE(summary.stragglers[0].to_end) << steps;
  }
}

// Since when it is slow, not since when it is slower.
TEST(Summary, SlowAndThenSlower) {
  for (const double more : {0.0, 0.02, 0.06, 0.15}) {
    const Summary summary = Summarize(Made([=](int rank, int step) {
      return Extra{.backward = rank != 1 || step < 20 ? 0 : step < 45 ? 0.01 : 0.01 + more};
    }));
    ASSERT_EQ(summary.stragglers.size(), 1U) << more;
    EXPECT_EQ(summary.stragglers[0].first_step, 20) << more;
    EXPECT_TRUE(summary.stragglers[0].to_end) << more;
  }
}

// Of a step that ran as graphs nothing is known but its time.
TEST(Summary, StepsAsGraphsAreCountedAndThoseThatAreSeenSayWhatTheyDid) {
  const auto made = [](int seen_every) {
    ProfileData data = Made([](int rank, int) { return Extra{.forward = rank == 2 ? 0.008 : 0}; }, /*gpu=*/true);
    for (RankProfile& rank : data.ranks) {
      const RankProfile seen = std::exchange(rank, {});
      rank.rank = seen.rank;
      rank.header = seen.header;
      for (ProfilePeriod step : seen.periods) {
        if (step.step % seen_every > 0) {
          step.seconds -= 0.001;
          step.cells = {{.stage = "graph", .seconds = step.seconds}};
          step.transfers.clear();
        }
        rank.Add(step);
      }
    }
    return Summarize(data);
  };
  const Summary all = made(1), some = made(6), none = made(kSteps + 1);
  EXPECT_EQ(all.seen, kSteps);
  EXPECT_EQ(some.seen, kSteps / 6);
  EXPECT_EQ(none.seen, 0);
  for (const Summary& summary : {some, none}) EXPECT_EQ(summary.steps, kSteps);
  EXPECT_NEAR(some.step, all.step - 0.001 * 5 / 6, 1e-9);
  const RankRow& mean = some.mean;
  EXPECT_NEAR(mean.work + mean.data + mean.other + mean.waiting + mean.moving, mean.step, 1e-12);
  EXPECT_NEAR(mean.step, all.mean.step, 2e-4);
  ASSERT_EQ(some.stages.size(), all.stages.size());
  for (size_t i = 0; i < all.stages.size(); ++i) EXPECT_EQ(some.stages[i].stage, all.stages[i].stage);
  EXPECT_NEAR(some.transfers.at(0).moving, kMove, 1e-9);
  ASSERT_EQ(some.stragglers.size(), 1U);
  EXPECT_EQ(some.stragglers[0].rank, 2);
  EXPECT_NE(ReportText(some).find("10 of the steps ran kernel by kernel"), std::string::npos) << ReportText(some);
  EXPECT_NE(ReportText(none).find("within CUDA graphs are not seen"), std::string::npos) << ReportText(none);
  EXPECT_EQ(ReportText(all).find("graph"), std::string::npos) << ReportText(all);
}

TEST(Summary, DataComputeAndOneOff) {
  const Summary data = Summarize(Made([](int rank, int) { return Extra{.data = rank == 3 ? 0.01 : 0}; }));
  ASSERT_EQ(data.stragglers.size(), 1U);
  EXPECT_EQ(data.stragglers[0].what, SlowClass::kData);
  const Summary gpu = Summarize(Made([](int rank, int) { return Extra{.forward = rank == 3 ? 0.01 : 0}; }, true));
  ASSERT_EQ(gpu.stragglers.size(), 1U);
  EXPECT_EQ(gpu.stragglers[0].what, SlowClass::kCompute);  // of a GPU's kernels there is no other time
  const Summary once =
      Summarize(Made([](int rank, int step) { return Extra{.other = rank == 0 && step == 17 ? 0.5 : 0}; }));
  ASSERT_EQ(once.stragglers.size(), 1U);
  EXPECT_EQ(once.stragglers[0].single, std::vector<int64_t>{17});
  EXPECT_NE(ReportText(once).find("one-off, step 17"), std::string::npos);
}

TEST(Summary, ALinkIsSlowAlways) {
  const auto move = [](int rank, int) { return Extra{.move = rank == 1 ? 0.02 : 0}; };
  EXPECT_TRUE(Summarize(Made(move)).stragglers.empty());  // its processor may be as well
  const Summary always = Summarize(Made(move, /*gpu=*/true));
  ASSERT_EQ(always.stragglers.size(), 1U);
  EXPECT_EQ(always.stragglers[0].rank, 1);
  EXPECT_EQ(always.stragglers[0].what, SlowClass::kLink);
  // A processor that others use shows in some steps.
  const Summary some =
      Summarize(Made([](int rank, int step) { return Extra{.move = rank == 1 && step % 2 == 0 ? 0.04 : 0}; }, true));
  EXPECT_TRUE(some.stragglers.empty());
}

// Four ranks on nodes of these names, between which a message takes so long, in seconds by measurement and rank to its
// next.
Summary WithLinks(const std::vector<std::string>& hosts, const std::vector<std::array<double, kRanks>>& seconds) {
  ProfileData data = Made([](int, int) { return Extra{.move = 0.02}; });
  for (int r = 0; r < kRanks; ++r) {
    data.ranks[r].header.set_host(hosts[r]);
    for (size_t i = 0; i < seconds.size(); ++i) {
      data.ranks[r].links.push_back({10.0 * static_cast<double>(i), (r + 1) % kRanks, seconds[i][r], 1 << 18});
    }
    double begin = 0;
    for (ProfilePeriod& step : data.ranks[r].periods) step.begin = begin += 0.5;
  }
  return Summarize(data);
}

TEST(Summary, LinksBetweenNodes) {
  const std::vector<std::string> nodes = {"n1", "n2", "n3", "n4"};
  const Summary own = WithLinks(nodes, {{0.002, 0.002, 0.0001, 0.0001}});
  ASSERT_EQ(own.stragglers.size(), 1U);
  EXPECT_EQ(own.stragglers[0].rank, 1);
  EXPECT_EQ(own.stragglers[0].what, SlowClass::kLink);
  EXPECT_EQ(own.stragglers[0].link, "of n2");
  EXPECT_TRUE(own.stragglers[0].since_start && own.stragglers[0].to_end);
  EXPECT_NEAR(own.stragglers[0].saving, 0.95 * 0.022, 1e-6);
  EXPECT_NE(ReportText(own).find("link of n2"), std::string::npos);
  const Summary between = WithLinks(nodes, {{0.0001, 0.002, 0.0001, 0.0001}});
  ASSERT_EQ(between.stragglers.size(), 1U);
  EXPECT_EQ(between.stragglers[0].link, "between n2 and n3");
  // Once is a disturbance, twice is not; and since when.
  const std::array<double, kRanks> good = {0.0001, 0.0001, 0.0001, 0.0001}, slow = {0.0005, 0.0005, 0.0001, 0.0001};
  EXPECT_TRUE(WithLinks(nodes, {good, slow}).stragglers.empty());
  EXPECT_TRUE(WithLinks(nodes, {slow, good}).stragglers.empty());
  const Summary later = WithLinks(nodes, {good, slow, slow});
  ASSERT_EQ(later.stragglers.size(), 1U);
  EXPECT_EQ(later.stragglers[0].first_step, 20);  // 10 s
  EXPECT_FALSE(later.stragglers[0].since_start);
  // Within a node, and where there are few, nothing is said.
  EXPECT_TRUE(WithLinks({"n1", "n1", "n1", "n1"}, {{0.001, 0.001, 0.0001, 0.0001}}).stragglers.empty());
  EXPECT_TRUE(WithLinks({"n1", "n1", "n2", "n2"}, {{0.0001, 0.001, 0.0001, 0.0001}}).stragglers.empty());
}

// Kernels hide a transfer on a stream beside them, but for what the compute stream stalls.
TEST(Summary, OfAStreamBesideOnlyStallsAreExposed) {
  ProfilePeriod step;
  step.seconds = 0.1;
  step.cells = {{.stage = "window", .seconds = 0.07},
                {.stage = "halo", .kind = proto::TRANSFER_BESIDE, .seconds = 0.05},
                {.stage = "halo", .kind = proto::STALL, .seconds = 0.02}};
  ProfileTransfer transfer;
  transfer.span.kind = proto::TRANSFER_BESIDE;
  transfer.span.seconds = 0.05;
  transfer.wait = 0.01;
  step.transfers = {transfer};
  const RankRow row = RowOf(step);
  EXPECT_NEAR(row.waiting, 0.004, 1e-12);
  EXPECT_NEAR(row.moving, 0.016, 1e-12);
  EXPECT_NEAR(row.hidden, 0.03, 1e-12);
  EXPECT_NEAR(row.other, 0.01, 1e-12);
  EXPECT_NEAR(row.own(), 0.08, 1e-12);
}

TEST(Summary, ColumnsFitATerminal) {
  const std::string text =
      ReportText(Summarize(Made([](int rank, int) { return Extra{.forward = rank == 2 ? 0.008 : 0}; })));
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 120U) << text.substr(begin, end - begin);
    begin = end + 1;
  }
}

// Of a GPU all that is in use, and what of it is neither tensors nor scratch.
TEST(BesidePlan, MemoryOfAGpu) {
  ProfileData data = Made([](int, int) { return Extra{}; }, /*gpu=*/true, /*steps=*/1);
  RankProfile& rank = data.ranks[1];
  rank.totals.memory = 2000;
  for (const auto& [use, bytes] : {std::pair("weights", 900), std::pair("scratch", 200), std::pair("", 1100)}) {
    proto::Memory& peak = rank.peaks.emplace_back();
    peak.set_use(use);
    peak.set_bytes(bytes);
  }
  PlannedRun plan;
  plan.rank = 1;
  plan.memory = {{"weights", 900}};
  plan.scratch = 190;
  plan.nccl = 850;
  std::map<std::string, std::pair<double, double>> rows;
  for (const PlanRow& row : BesidePlan(data, plan)) rows[row.what] = {row.planned, row.measured};
  EXPECT_EQ(rows["memory: all but scratch"], std::pair(900.0, 900.0));
  EXPECT_EQ(rows["memory: scratch"], std::pair(190.0, 200.0));
  EXPECT_EQ(rows["memory: NCCL and the rest"], std::pair(850.0, 900.0));
  EXPECT_EQ(rows["memory: in use"], std::pair(1940.0, 2000.0));
  plan.nccl = -1;  // unknown
  for (const PlanRow& row : BesidePlan(data, plan)) {
    EXPECT_NE(row.what, "memory: NCCL and the rest");
    EXPECT_NE(row.what, "memory: in use");
  }
}

}  // namespace
}  // namespace longspan

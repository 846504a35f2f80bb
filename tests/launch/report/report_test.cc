// `longspan report` on what runs leave: whole, killed, broken, resumed.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>

#include "tests/launch/report/profiled_run.h"

namespace longspan {
namespace {

using nlohmann::json;

class Reports : public ProfiledRun {
 protected:
  void Train(int ranks, const std::string& keys) {
    EXPECT_EQ(RunProgram(folder_, ranks, Arguments(keys), &said_), 0) << said_;
  }
  std::string FileOf(int rank) { return folder_ / fmt::format("runs/run/profile/rank{:05}.pb", rank); }
};

double SumOfParts(const json& row) {
  return row["work"].get<double>() + row["waiting"].get<double>() + row["moving"].get<double>() +
         row["data"].get<double>() + row["other"].get<double>();
}

TEST_F(Reports, StepsAddUpAndTransfersAreCounted) {
  Train(4, "train.steps=12 train.eval_interval=6 train.eval_sequences=4");
  EXPECT_NE(said_.find("the largest costs"), std::string::npos) << said_;
  EXPECT_EQ(ReadFile(folder_ / "runs/run/profile/report.txt"),
            said_.substr(said_.find(folder_ / "runs/run: 4 ranks"),
                         ReadFile(folder_ / "runs/run/profile/report.txt").size()));
  const json report = Report();
  EXPECT_EQ(report, json::parse(ReadFile(folder_ / "runs/run/profile/report.json")));
  EXPECT_EQ(report["running"], false);
  EXPECT_EQ(report["ranks"], 4);
  EXPECT_EQ(report["read"], 4);
  EXPECT_TRUE(report["problems"].empty());
  EXPECT_EQ(report["steps"]["count"], 12);
  ASSERT_EQ(report["rank"].size(), 4U);
  for (const json& row : report["rank"]) {
    const double step = row["step"];
    EXPECT_NEAR(SumOfParts(row), step, 1e-6 * step);
    EXPECT_LT(std::abs(row["other"].get<double>()), 0.03 * step) << row;  // what no span accounts for
  }
  double work = 0, bytes = 0, evaluated = report["ledger"]["evaluation"];
  std::map<std::string, double> calls;
  for (const json& row : report["stages"]) work += row["seconds"]["mean"].get<double>();
  for (const json& row : report["transfers"]) {
    bytes += row["bytes"].get<double>();
    calls[row["stage"].get<std::string>() + " " + row["pass"].get<std::string>()] += row["calls"].get<double>();
  }
  const json& mean = report["breakdown"];
  EXPECT_NEAR(work, mean["work"].get<double>() + mean["data"].get<double>(), 1e-6);
  EXPECT_GT(evaluated, 0);
  // One layer, separate branches: k and v of the selected branch, summaries of both, halos of two branches.
  EXPECT_NEAR(calls["selected_transfer forward"], 2, 1e-9);
  EXPECT_NEAR(calls["selected_transfer backward"], 2, 1e-9);
  EXPECT_NEAR(calls["summaries forward"], 2, 1e-9);
  EXPECT_NEAR(calls["halo forward"], 2, 1e-9);
  EXPECT_NEAR(calls["halo backward"], 2, 1e-9);
  for (const char* stage : {"projections", "compress", "compressed", "selected", "window", "scoring", "output",
                            "feed_forward", "loss", "optimizer", "embedding", "data"}) {
    EXPECT_TRUE(std::any_of(report["stages"].begin(), report["stages"].end(), [&](const json& row) {
      return row["stage"] == stage;
    })) << stage;
  }
  // GATHER brings each of two ranks the 1024 rows of the other: 2 groups of 16 floats, k and v.
  for (const json& row : report["transfers"]) {
    if (row["stage"] == "selected_transfer" && row["pass"] == "forward") {
      EXPECT_EQ(row["bytes"], 2 * 1024 * 2 * 16 * 4);
    }
  }
}

// FLOPs, memory and bytes of the plan are those of the run: exactly with GATHER.
TEST_F(Reports, ThePlanBesideTheMeasurement) {
  Train(4, fmt::format("train.steps=8 train.record_selection='{}'", folder_ / "selection"));
  const json report = Report();
  ASSERT_EQ(report["selection"]["layers"].size(), 1U);
  const json& layer = report["selection"]["layers"][0];
  EXPECT_NEAR(layer["local"].get<double>() + layer["halo"].get<double>() + layer["remote"].get<double>(), 1, 1e-9);
  EXPECT_GT(layer["remote"], 0);
  EXPECT_GT(layer["union_8"], layer["union_2"]);
  EXPECT_EQ(report["selection"]["step"], 8);
  EXPECT_EQ(report["selection"]["coverage"], 1);  // GATHER
  ASSERT_FALSE(report["plan"].empty()) << report["problems"];
  std::map<std::string, std::pair<double, double>> rows;
  for (const json& row : report["plan"]) rows[row["what"]] = {row["planned"], row["measured"]};
  for (const char* what :
       {"received by all_gather", "received by reduce_scatter", "received by send_receive", "memory: weights",
        "memory: activations", "memory: optimizer", "memory: all but scratch", "computed"}) {
    ASSERT_EQ(rows.count(what), 1U) << what << report["plan"];
    EXPECT_GT(rows[what].first, 0) << what;
    EXPECT_NEAR(rows[what].second / rows[what].first, 1, 1e-6) << what;
  }
  EXPECT_GT(report["flops"]["dense_equivalent"].get<double>(), report["flops"]["executed"].get<double>());
  const auto use = [&](const std::string& name) {
    for (const json& row : report["memory"]) {
      if (row["use"] == name) return row["max"].get<double>();
    }
    return 0.0;
  };
  EXPECT_GT(use("weights"), 0);
  const double planned = use("all of these") - use("scratch");  // of the largest rank
  EXPECT_NEAR(planned / rows["memory: all but scratch"].second, 1, 1e-3);
  EXPECT_GT(use("scratch"), 100'000);  // of CPU kernels
  EXPECT_GT(use("all of these"), use("weights") + use("activations"));
  EXPECT_GT(use("in use by the process"), use("all of these"));
  EXPECT_GT(use("batches on their way to the device"), 0);  // of the host
  std::filesystem::remove(folder_ / "runs/run/config.textproto");
  const json without = Report();
  EXPECT_TRUE(without["plan"].empty());
  EXPECT_NE(without["problems"].dump().find("no plan beside it"), std::string::npos) << without["problems"];
}

TEST_F(Reports, ThePlanOfAnotherLayoutAndExchangeWithRecomputation) {
  Train(2,
        "train.steps=2 parallel.layout=CONTIGUOUS parallel.selected_exchange=FETCH train.recompute=FULL "
        "train.offload=true");
  const json plan = Report()["plan"];
  ASSERT_FALSE(plan.empty());
  for (const json& row : plan) {
    const std::string what = row["what"];
    const double off = row["measured"].get<double>() / row["planned"].get<double>() - 1;
    // The blocks that were fetched are planned by their mean over ranks.
    EXPECT_NEAR(off, 0, what == "received by send_receive" ? 0.1 : what == "computed" ? 1e-3 : 1e-6) << row;
  }
}

TEST_F(Reports, AKilledRunHasItsProfile) {
  BackgroundRun run(4, Arguments("train.steps=100000"), folder_ / "said");
  run.AwaitText("rehearsal of the step");
  // Written every two seconds.
  run.Await([&] {
    for (int rank = 0; rank < 4; ++rank) {
      if (!std::filesystem::exists(FileOf(rank)) || std::filesystem::file_size(FileOf(rank)) < 20000) return false;
    }
    return true;
  });
  for (const pid_t pid : run.Children()) kill(pid, SIGKILL);
  run.Wait();
  const json report = Report();
  EXPECT_GT(report["steps"]["count"], 3);
  EXPECT_EQ(report["running"], true);  // for all that is known
  EXPECT_EQ(report["read"], 4);
}

TEST_F(Reports, BrokenAndMissingFilesAreSaidAndTheRestIsReported) {
  Train(4, "train.steps=8");
  std::filesystem::remove(FileOf(1));
  const auto size = std::filesystem::file_size(FileOf(2));
  std::filesystem::resize_file(FileOf(2), size - 7);
  WriteFile(FileOf(3), "this is no profile");
  json report = Report();
  const std::string problems = report["problems"].dump();
  EXPECT_EQ(report["read"], 2) << problems;
  EXPECT_NE(problems.find("rank 1 has no readable profile"), std::string::npos) << problems;
  EXPECT_NE(problems.find("rank 3 has no readable profile"), std::string::npos) << problems;
  EXPECT_NE(problems.find("rank00002.pb: its last "), std::string::npos) << problems;
  EXPECT_GE(report["steps"]["count"], 7);
  // Any part of a file reads.
  const std::string bytes = ReadFile(FileOf(0));
  for (size_t cut = 0; cut < bytes.size(); cut += 1 + bytes.size() / 40) {
    WriteFile(FileOf(0), bytes.substr(0, cut));
    report = Report();
    EXPECT_FALSE(report.is_discarded()) << cut;
  }
  for (int rank = 0; rank < 4; ++rank) std::filesystem::remove(FileOf(rank));
  EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}'", folder_ / "runs/run"), &said_), 74);
  EXPECT_NE(said_.find("expected files rankNNNNN.pb"), std::string::npos) << said_;
}

TEST_F(Reports, ATimelineOfTheChosenSteps) {
  Train(2, "train.steps=5 profile.first_step=2 profile.steps=2");
  const std::string path = folder_ / "trace.json";
  EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}' --trace '{}'", folder_ / "runs/run", path), &said_), 0);
  EXPECT_NE(said_.find("2 steps of 2 ranks"), std::string::npos) << said_;
  const json trace = json::parse(ReadFile(path));
  int spans = 0, transfers = 0;
  double begin = -1, end = -1;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    if (event["name"] == "step 2" && event["pid"] == 1) {
      begin = event["ts"];
      end = begin + event["dur"].get<double>();
    }
    EXPECT_NE(event["name"], "step 4");
    ++spans;
    if (event["cat"] == "transfer") ++transfers;
  }
  EXPECT_GT(spans, 100);
  EXPECT_GT(transfers, 20);
  EXPECT_LT(begin, end);
  EXPECT_EQ(RunProgram(folder_, 2, Arguments("train.steps=2 --overwrite profile.steps=0"), &said_), 0);
  EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}' --trace '{}'", folder_ / "runs/run", path), &said_), 65);
  EXPECT_NE(said_.find("profile.level = FULL"), std::string::npos) << said_;
}

// Of what a browser makes of it: page_test.py.
TEST_F(Reports, APageHoldsAllThatItShowsAndNoElementOfARun) {
  Train(2, "train.steps=4");
  const std::string page = folder_ / "runs/run/profile/report.html",
                    hostile = folder_ / "</script><script>f()</script>";
  if (said_.find("built without libjs-chart.js") != std::string::npos) {
    EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}' --html", folder_ / "runs/run"), &said_), 74) << said_;
    EXPECT_NE(said_.find("install libjs-chart.js"), std::string::npos) << said_;
    GTEST_SKIP() << "built without libjs-chart.js";
  }
  EXPECT_NE(said_.find("with charts: " + page + "\n"), std::string::npos) << said_;
  const auto data_of = [](const std::string& html) {
    const std::string begin = "id=\"data\">";
    const size_t at = html.find(begin) + begin.size();
    return json::parse(html.substr(at, html.find("</script", at) - at));
  };
  const json data = data_of(ReadFile(page));
  EXPECT_EQ(data["report"], json::parse(ReadFile(folder_ / "runs/run/profile/report.json")));
  EXPECT_EQ(data["metrics"]["step"], json({1, 2, 3, 4}));
  EXPECT_EQ(data["own"]["ranks"].size(), 2U);
  EXPECT_EQ(data["timeline"]["step"], 4);
  EXPECT_GT(data["timeline"]["spans"].size(), 50U);
  std::filesystem::create_directories(std::filesystem::path(hostile).parent_path());
  std::filesystem::rename(folder_ / "runs/run", hostile);
  WriteFile(hostile + "/eval.json",
            R"({"positions":[{"begin":0,"end":16,"loss":2.5},{"begin":16,"end":32,"loss":null}]})");
  const std::string other = folder_ / "other.html";
  EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}' --html --output '{}'", hostile, other), &said_), 0)
      << said_;
  EXPECT_EQ(said_, other + "\n");
  const std::string html = ReadFile(other);
  EXPECT_EQ(data_of(html)["report"]["run"], hostile);
  EXPECT_EQ(data["metrics"]["positions"], json::array());
  EXPECT_EQ(data_of(html)["metrics"]["positions"], json::parse("[[0,16,2.5]]"));
  EXPECT_EQ(html.find("<script>f()"), std::string::npos);
}

TEST_F(Reports, RunsBesideEachOther) {
  Train(1, "train.steps=8 parallel.cp=1");
  std::filesystem::rename(folder_ / "runs/run", folder_ / "runs/one");
  Train(2, "train.steps=8");
  const std::string one = folder_ / "runs/one", two = folder_ / "runs/run", page = folder_ / "scaling.html";
  EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}' --compare '{}'", one, two), &said_), 0) << said_;
  EXPECT_NE(said_.find("parallel.cp"), std::string::npos) << said_;
  EXPECT_NE(said_.find("waiting for other ranks"), std::string::npos) << said_;
  EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report --scaling '{}' '{}'", one, two), &said_), 0) << said_;
  EXPECT_NE(said_.find("strong scaling, "), std::string::npos) << said_;
  const int drawn =
      RunProgram(folder_, 1, fmt::format("report --scaling '{}' '{}' --html --output '{}'", one, two, page), &said_);
  EXPECT_TRUE(drawn == 0 || said_.find("without Chart.js") != std::string::npos) << said_;
  EXPECT_EQ(RunProgram(folder_, 1, "report", &said_), 64) << said_;
  EXPECT_EQ(RunProgram(folder_, 1, fmt::format("report '{}' --compare '{}'", one, folder_ / "none"), &said_), 74)
      << said_;
}

TEST_F(Reports, AResumedRunHasItsRestartAndLostSteps) {
  Train(2, "train.steps=4 checkpoint.at_end=true");
  // Four more that come after the last save.
  Train(2, "train.steps=8 --resume");
  Train(2, "train.steps=6 --resume");
  const json ledger = Report()["ledger"];
  EXPECT_EQ(ledger["restarts"], 2);
  EXPECT_EQ(ledger["lost_steps"], 4);
  EXPECT_GT(ledger["lost"], 0);
  EXPECT_EQ(Report()["steps"]["first"], 5);
  EXPECT_EQ(Report()["steps"]["last"], 6);
}

TEST_F(Reports, TheNextStageOfARunIsNoRestart) {
  Train(2, "train.steps=4 'data.stages=1024 2 2'");
  const json report = Report();
  EXPECT_EQ(report["steps"]["first"], 3);
  EXPECT_EQ(report["steps"]["last"], 4);
  EXPECT_EQ(report["ledger"]["restarts"], 0);
  EXPECT_EQ(report["ledger"]["lost_steps"], 0);
  EXPECT_GT(report["ledger"]["training"].get<double>(), 3 * report["steps"]["mean"].get<double>() * 0.5);
}

TEST_F(Reports, NothingIsRecordedWhenOff) {
  Train(2, "train.steps=2 profile.level=OFF");
  EXPECT_FALSE(std::filesystem::exists(FileOf(0)));
  EXPECT_EQ(said_.find("the largest costs"), std::string::npos);
}

}  // namespace
}  // namespace longspan

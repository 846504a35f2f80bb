// A run's folder belongs to one run, and what an older one left is not lost in silence. A line of metrics that is not
// written is an error.
#include "launch/train/run_folder.h"

#include <unistd.h>

#include <filesystem>

#include "launch/train/run_log.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() {
    config_.name = "a";
    config_.output = folder_ / "out";
  }
  TempFolder folder_;
  RunConfig config_;
  const std::string path_ = folder_ / "out/a";
};

// The run's files elsewhere are called by its id, and removed by it.
TEST_F(RunFolderTest, ItsIdStays) {
  std::string id;
  {
    const RunFolder first(config_, OlderRun::kKeep, true);
    id = first.id();
    EXPECT_EQ(id.size(), 16U);
    EXPECT_EQ(RunFolder::ReadId(path_), id);
  }
  for (const OlderRun older : {OlderRun::kKeep, OlderRun::kResume, OlderRun::kReplace}) {
    EXPECT_EQ(RunFolder(config_, older, true).id(), id);
  }
  WriteFile(path_ + "/id", "../../etc/longs\n");
  EXPECT_EQ(RunFolder::ReadId(path_), "");
  const RunFolder next(config_, OlderRun::kKeep, true);
  EXPECT_EQ(next.id().find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(next.id(), id);
}

TEST_F(RunFolderTest, OneRunAtATimeHasIt) {
  {
    const RunFolder first(config_, OlderRun::kKeep, true);
    ExpectError(ExitCode::kConfig, {"name = \"a\"", path_, "pid " + std::to_string(getpid()), "set name to another"},
                [&] { RunFolder(config_, OlderRun::kKeep, true); });
    ExpectError(ExitCode::kConfig, {"in use"}, [&] { RunFolder(config_, OlderRun::kReplace, true); });
    const RunFolder of_another_rank(config_, OlderRun::kKeep, false);
    config_.name = "b";
    const RunFolder another(config_, OlderRun::kKeep, true);
    config_.name = "a";
  }
  const RunFolder next(config_, OlderRun::kKeep, true);
  EXPECT_FALSE(next.replaces());
}

TEST_F(RunFolderTest, AnOlderRunStaysUntilTheNewOneBegins) {
  const std::vector<std::string> own = {"metrics.jsonl", "profile/rank00000.pb", "profile/rank00003.pb",
                                        "profile/report.txt", "profile/report.json"};
  for (const std::string& name : own) WriteFile(path_ + "/" + name, "replaced");
  WriteFile(path_ + "/profile/notes.txt", "mine");
  ExpectError(ExitCode::kConfig, {"name = \"a\"", path_, "older run", "set name to another", "--overwrite"},
              [&] { RunFolder(config_, OlderRun::kKeep, true); });
  EXPECT_NE(RunFolder::Problem(config_, OlderRun::kKeep), "");
  EXPECT_EQ(RunFolder::Problem(config_, OlderRun::kReplace), "");
  RunFolder folder(config_, OlderRun::kReplace, true);
  EXPECT_TRUE(folder.replaces());
  for (const std::string& name : own) EXPECT_EQ(ReadFile(path_ + "/" + name), "replaced") << name;
  folder.Begin("name: \"a\"\n");
  EXPECT_EQ(ReadFile(path_ + "/config.textproto"), "name: \"a\"\n");
  for (const std::string& name : own) {
    EXPECT_EQ(std::filesystem::exists(path_ + "/" + name), name == "metrics.jsonl") << name;
  }
  EXPECT_EQ(ReadFile(path_ + "/profile/notes.txt"), "mine");
  RunLog log(config_, path_, true);
  log.Start({});
  EXPECT_EQ(ReadFile(path_ + "/metrics.jsonl").find("replaced"), std::string::npos);
}

TEST_F(RunFolderTest, AResumedRunGoesOnInItsProfile) {
  for (const char* name : {"rank00001.pb", "report.txt"}) WriteFile(path_ + "/profile/" + name, "before");
  RunFolder(config_, OlderRun::kResume, true).Begin("");
  EXPECT_EQ(ReadFile(path_ + "/profile/rank00001.pb"), "before");
  EXPECT_FALSE(std::filesystem::exists(path_ + "/profile/report.txt"));
}

TEST_F(RunFolderTest, AFolderThatCannotBe) {
  WriteFile(folder_ / "out", "a file");
  ExpectError(ExitCode::kIo, {path_, "cannot be made"}, [&] { RunFolder(config_, OlderRun::kKeep, true); });
}

// /dev/full takes nothing, as a full disk.
TEST_F(RunFolderTest, TheFirstLostLineIsAnError) {
  const RunFolder folder(config_, OlderRun::kKeep, true);
  std::filesystem::create_symlink("/dev/full", path_ + "/metrics.jsonl");
  RunLog log(config_, path_, true);
  ExpectError(ExitCode::kIo, {path_ + "/metrics.jsonl", "No space left on device"}, [&] { log.Start({}); });
}

// What comes again is marked, half a line goes, and the rest stays as it was.
TEST_F(RunFolderTest, ResumedMetricsCountNoStepTwice) {
  const RunFolder folder(config_, OlderRun::kResume, true);
  const std::string kept =
      "{\"kind\":\"start\"}\n{\"kind\":\"step\",\"step\":1,\"loss\":0.1}\n{\"kind\":\"eval\",\"step\":2}\n";
  WriteFile(path_ + "/metrics.jsonl",
            kept + "{\"kind\":\"step\",\"step\":3}\n{\"kind\":\"eval\",\"step\":3}\n{\"kind\":\"st");
  for (const int64_t after : {2, 1}) {
    RunLog log(config_, path_, true);
    StartMetrics start;
    start.resumes = true;
    start.after = after;
    start.seconds = 100;
    log.Start(start);
    EXPECT_GE(log.Elapsed(), 100);
    const std::string lines = ReadFile(path_ + "/metrics.jsonl");
    EXPECT_EQ(lines.starts_with(kept), after == 2) << lines;
    EXPECT_NE(lines.find(
                  "{\"kind\":\"lost\",\"step\":3,\"was\":\"step\"}\n{\"kind\":\"lost\",\"step\":3,\"was\":\"eval\"}\n"),
              std::string::npos)
        << lines;
    EXPECT_EQ(lines.find("{\"kind\":\"lost\",\"step\":2,\"was\":\"eval\"}") != std::string::npos, after == 1) << lines;
    EXPECT_NE(lines.find(fmt::format("\"after\":{}", after)), std::string::npos) << lines;
    EXPECT_NE(lines.find("\"kind\":\"resume\""), std::string::npos) << lines;
  }
}

TEST_F(RunFolderTest, MetricsAreOnTheDiskAtOnce) {
  const RunFolder folder(config_, OlderRun::kKeep, true);
  RunLog log(config_, path_, true);
  StartMetrics start;
  start.version = "1.2";
  log.Start(start);
  EXPECT_NE(ReadFile(path_ + "/metrics.jsonl").find("\"version\":\"1.2\""), std::string::npos);
  testing::internal::CaptureStdout();
  StepMetrics step;
  step.step = 1;
  step.loss = 2.5;
  step.seconds = 0.5;
  step.tokens = 100;
  step.labels = 50;
  log.Step(step);
  step.step = 200;
  step.labels = 0;
  log.Step(step);
  const std::string said = testing::internal::GetCapturedStdout(), lines = ReadFile(path_ + "/metrics.jsonl");
  EXPECT_NE(said.find("loss 2.5000"), std::string::npos) << said;
  EXPECT_NE(said.find("200 tok/s, 100 labels/s"), std::string::npos) << said;
  EXPECT_NE(said.find("step 200/200 | no label, no loss"), std::string::npos) << said;
  EXPECT_NE(lines.find("\"loss\":2.5"), std::string::npos) << lines;
  EXPECT_NE(lines.find("\"loss\":null"), std::string::npos) << lines;
}

}  // namespace
}  // namespace longspan

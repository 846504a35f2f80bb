// OutputFile: what is there after a commit, a failure and a kill, and who may write.
#include "runtime/files/output_file.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <list>
#include <thread>
#include <vector>

#include "tests/support/files.h"

namespace longspan {
namespace {

class OutputFileTest : public testing::Test {
 protected:
  static void Put(OutputFile* file, const std::string& text) {
    file->Write(text.data(), static_cast<int64_t>(text.size()));
  }
  bool Exists(const std::string& name) const { return std::filesystem::exists(folder_ / name); }
  TempFolder folder_;
};

TEST_F(OutputFileTest, AppearsWhenItIsComplete) {
  WriteFile(folder_ / "a", "older");
  {
    OutputFile file(folder_ / "a");
    Put(&file, "new");
    EXPECT_EQ(ReadFile(folder_ / "a"), "older");
  }
  EXPECT_EQ(ReadFile(folder_ / "a"), "older");
  EXPECT_FALSE(Exists("a.partial"));
  OutputFile file(folder_ / "a");
  Put(&file, "new");
  file.Commit();
  EXPECT_EQ(ReadFile(folder_ / "a"), "new");
  EXPECT_FALSE(Exists("a.partial"));
}

TEST_F(OutputFileTest, ASecondWriterIsRefused) {
  OutputFile first(folder_ / "a");
  Put(&first, "first");
  ExpectError(ExitCode::kIo, {folder_ / "a", "another process is writing it"},
              [&] { const OutputFile second(folder_ / "a"); });
  first.Commit();
  EXPECT_EQ(ReadFile(folder_ / "a"), "first");
  OutputFile third(folder_ / "a");
  third.Commit();
  EXPECT_EQ(ReadFile(folder_ / "a"), "");
}

// What a killed process left is neither in the way nor in the file.
TEST_F(OutputFileTest, AKilledWriterLeavesTheOlderFileAndTheName) {
  WriteFile(folder_ / "a", "older");
  const pid_t child = fork();
  if (child == 0) {
    OutputFile file(folder_ / "a");
    Put(&file, std::string(100000, 'x'));
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(ReadFile(folder_ / "a"), "older");
  EXPECT_TRUE(Exists("a.partial"));
  OutputFile file(folder_ / "a");
  Put(&file, "new");
  file.Commit();
  EXPECT_EQ(ReadFile(folder_ / "a"), "new");
  EXPECT_FALSE(Exists("a.partial"));
}

TEST_F(OutputFileTest, AFolderIsNotReplaced) {
  std::filesystem::create_directory(folder_ / "a");
  ExpectError(ExitCode::kIo, {folder_ / "a", "a folder"}, [&] { const OutputFile file(folder_ / "a"); });
}

TEST_F(OutputFileTest, SeveralAppearTogether) {
  WriteFile(folder_ / "a", "older a");
  WriteFile(folder_ / "b", "older b");
  OutputFile a(folder_ / "a"), b(folder_ / "b");
  Put(&a, "new a");
  Put(&b, "new b");
  CommitAll(std::vector{&a, &b});
  EXPECT_EQ(ReadFile(folder_ / "a"), "new a");
  EXPECT_EQ(ReadFile(folder_ / "b"), "new b");
}

// Whatever thread a signal meets.
TEST_F(OutputFileTest, ASignalComesBeforeOrAfterAllOfThem) {
  const auto name = [](int i) { return std::to_string(i); };
  constexpr int kFiles = 200;  // so that there is time to be hit
  for (int i = 0; i < kFiles; ++i) WriteFile(folder_ / name(i), "older");
  const pid_t child = fork();
  if (child == 0) {
    std::list<OutputFile> outputs;
    std::vector<OutputFile*> files;
    for (int i = 0; i < kFiles; ++i) {
      files.push_back(&outputs.emplace_back(folder_ / name(i)));
      Put(files.back(), "new");
    }
    std::thread([&] {
      while (Exists(name(kFiles - 1)) && std::filesystem::file_size(folder_ / name(0)) != 3) {
      }
      kill(getpid(), SIGTERM);
    }).detach();
    CommitAll(files);
    while (true) pause();
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
  for (int i = 0; i < kFiles; ++i) EXPECT_EQ(ReadFile(folder_ / name(i)), "new") << i;
}

// A disk that is full shows before anything is replaced.
TEST_F(OutputFileTest, AFullDiskLeavesTheOlderFiles) {
  WriteFile(folder_ / "a", "older a");
  std::filesystem::create_symlink("/dev/full", folder_ / "b.partial");
  ExpectError(ExitCode::kIo, {"b.partial", "No space left"}, [&] {
    OutputFile a(folder_ / "a"), b(folder_ / "b");
    Put(&b, "new b");
    CommitAll(std::vector{&a, &b});
  });
  EXPECT_EQ(ReadFile(folder_ / "a"), "older a");
}

}  // namespace
}  // namespace longspan

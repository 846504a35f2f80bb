// GoogleTest's main for tests on several ranks.
//
// All ranks run the same tests in the same order. After each test rank 0 takes over the failures of the others, so that
// one report tells all; the exit status is the same everywhere. On more than one rank an exception that leaves a test
// ends the job: the others may be waiting in a transfer, and never reach the end of the test. For the same reason a
// rank that failed a test waits only kPatience for the others. Exit status 77: every test was skipped.
#include <gtest/gtest.h>
#include <mpi.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

constexpr double kPatience = 5;  // seconds
constexpr int kSkipped = 77;

[[noreturn]] void EndJob(const std::string& message) {
  fmt::print(stderr, "{}\n", message);
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kRankFailed));
  std::abort();
}

class FailureCollector : public testing::EmptyTestEventListener {
 public:
  FailureCollector() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }

  void OnTestEnd(const testing::TestInfo& info) override {
    const std::string text = Failures(info);
    WaitForOthers(text);
    std::vector<int> lengths(size_), begins(size_);
    const int length = static_cast<int>(text.size());
    MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
    int total = 0;
    for (int r = 0; r < size_; ++r) {
      begins[r] = total;
      total += lengths[r];
    }
    std::string all(total, '\0');
    MPI_Gatherv(text.data(), length, MPI_CHAR, all.data(), lengths.data(), begins.data(), MPI_CHAR, 0, MPI_COMM_WORLD);
    for (int r = 1; r < size_; ++r) {
      if (rank_ == 0 && lengths[r] > 0) ADD_FAILURE() << all.substr(begins[r], lengths[r]);
    }
  }

 private:
  static std::string Failures(const testing::TestInfo& info) {
    std::string text;
    const testing::TestResult& result = *info.result();
    for (int i = 0; i < result.total_part_count(); ++i) {
      const testing::TestPartResult& part = result.GetTestPartResult(i);
      if (!part.failed()) continue;
      const char* file = part.file_name() ? part.file_name() : "unknown file";
      text += fmt::format("{}{}:{}: {}\n", ProcessPrefix(), file, part.line_number(), part.message());
    }
    return text;
  }

  // A barrier that a rank with failures leaves by ending the job.
  static void WaitForOthers(const std::string& failures) {
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Ibarrier(MPI_COMM_WORLD, &request);
    const double begin = WallSeconds();
    for (int done = 0; !done;) {
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      const double waited = WallSeconds() - begin;
      if (!done && waited > 1e-3) usleep(200);
      if (!done && waited > kPatience && !failures.empty()) {
        EndJob(failures + ProcessPrefix() + "failed here; the other ranks did not end the test");
      }
    }
  }

  int rank_ = 0;
  int size_ = 0;
};

bool AllSkipped() {
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  return tests.skipped_test_count() > 0 && tests.skipped_test_count() == tests.test_to_run_count();
}

int RunAll() {
  int rank = 0, size = 0, length = 0;
  char host[MPI_MAX_PROCESSOR_NAME];
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Get_processor_name(host, &length);
  SetProcessIdentity(rank, size, host);

  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (rank != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new FailureCollector);
  if (size > 1) GTEST_FLAG_SET(catch_exceptions, false);

  const int failed = RUN_ALL_TESTS();
  int any_failed = 0;
  MPI_Allreduce(&failed, &any_failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (any_failed) return 1;
  return AllSkipped() ? kSkipped : 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  testing::InitGoogleTest(&argc, argv);
  int status = 1;
  try {
    status = longspan::RunAll();
  } catch (const longspan::Error& error) {
    longspan::EndJob(error.what());
  } catch (const std::exception& error) {
    longspan::EndJob(longspan::ProcessPrefix() + error.what());
  }
  MPI_Finalize();
  return status;
}

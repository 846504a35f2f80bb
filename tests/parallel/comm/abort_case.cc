// Not a test of its own: abort_test.cmake runs it on several ranks and looks at how it ends. One rank fails in the
// middle while the others wait in a transfer that needs it.
#include <gtest/gtest.h>

#include <vector>

#include "parallel/comm/comm.h"

namespace longspan {
namespace {

class AbortCase : public testing::Test {
 protected:
  // Does not return on the other ranks.
  void ReduceWithoutRank(int missing) {
    if (comm_->rank() == missing) return;
    float x = 1;
    comm_->AllReduce(*stream_, HostView(&x, {1}), ReduceOp::kSum);
    stream_->Synchronize();
  }

  std::unique_ptr<Device> device_ = MakeCpuDevice();
  std::unique_ptr<Stream> stream_ = device_->MakeStream("comm");
  std::unique_ptr<Communicator> comm_ = MakeMpiWorld();
};

TEST_F(AbortCase, Throws) {
  LS_CHECK(comm_->rank() != 2, "this rank throws");
  ReduceWithoutRank(2);
}

TEST_F(AbortCase, Fails) {
  ASSERT_NE(comm_->rank(), 2) << "this rank leaves the test";
  ReduceWithoutRank(2);
}

}  // namespace
}  // namespace longspan

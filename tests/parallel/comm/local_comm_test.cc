// A group of one copies; a planned group counts on a planned device, and refuses elsewhere.
#include "parallel/comm/local_comm.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "runtime/error.h"
#include "runtime/planned_device.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

class LocalCommTest : public testing::Test {
 protected:
  static Tensor View(std::vector<float>& x) { return HostView(x.data(), {static_cast<int64_t>(x.size())}); }

  const std::unique_ptr<Device> device_ = MakeCpuDevice();
  const std::unique_ptr<Stream> stream_ = device_->MakeStream("comm");
};

TEST_F(LocalCommTest, AloneEveryVerbIsACopyAtMost) {
  const auto alone = MakeLocalCommunicator(*device_);
  EXPECT_EQ(alone->rank(), 0);
  EXPECT_EQ(alone->size(), 1);
  EXPECT_FALSE(alone->host_waits());
  std::vector<float> x = {1, 2, 3}, gathered(3), scattered(3), exchanged(3), received(3);
  alone->AllReduce(*stream_, View(x), ReduceOp::kSum);
  alone->AllGather(*stream_, View(x), View(gathered));
  alone->AllGather(*stream_, View(x), View(x));  // its own place
  alone->ReduceScatter(*stream_, View(gathered), View(scattered));
  alone->AllToAll(*stream_, View(scattered), {3}, View(exchanged), {3});
  alone->SendReceive(*stream_,
                     {{Transfer::Kind::kReceive, 0, View(received)}, {Transfer::Kind::kSend, 0, View(exchanged)}});
  alone->Broadcast(*stream_, View(received), 0);
  alone->Barrier();
  alone->Split(0, 0)->Barrier();
  stream_->Synchronize();
  EXPECT_EQ(received, (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(x, received);
}

TEST_F(LocalCommTest, APlannedGroupKnowsItsSizeAndRefusesToTransfer) {
  const auto planned = MakeLocalCommunicator(*device_, 6);
  EXPECT_EQ(planned->rank(), 0);
  EXPECT_EQ(planned->size(), 6);
  std::vector<float> x(6), part(1);
  const std::vector<std::function<void()>> verbs = {
      [&] { planned->AllReduce(*stream_, View(x), ReduceOp::kSum); },
      [&] { planned->AllGather(*stream_, View(part), View(x)); },
      [&] { planned->ReduceScatter(*stream_, View(x), View(part)); },
      [&] {
        planned->AllToAll(*stream_, View(x), {1, 1, 1, 1, 1, 1}, View(x), {1, 1, 1, 1, 1, 1});
      },
      [&] { planned->Broadcast(*stream_, View(x), 0); },
      [&] {
        planned->SendReceive(*stream_, {{Transfer::Kind::kSend, 1, View(part)}});
      },
      [&] { planned->Barrier(); },
      [&] { planned->Split(0, 0); },
  };
  for (size_t i = 0; i < verbs.size(); ++i) {
    try {
      verbs[i]();
      stream_->Synchronize();
      ADD_FAILURE() << "verb " << i << " was not refused";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("6 ranks that is only planned"), std::string::npos) << error.what();
    }
  }
}

TEST_F(LocalCommTest, APlannedGroupCountsOnAPlannedDevice) {
  const auto device = MakePlannedDevice(DeviceKind::kCpu);
  const auto stream = device->MakeStream("planned");
  const auto planned = MakeLocalCommunicator(*device, 6, 2);
  EXPECT_EQ(planned->rank(), 2);
  std::vector<float> x(6), part(1);
  Trace::Get().Reset();
  planned->AllGather(*stream, View(part), View(x));
  planned->SendReceive(*stream, {{Transfer::Kind::kReceive, 1, View(part)}, {Transfer::Kind::kSend, 3, View(part)}});
  auto totals = Trace::Get().totals();
  EXPECT_EQ(totals["comm.all_gather"].bytes, 5 * sizeof(float));
  EXPECT_EQ(totals["comm.send_receive"].bytes, sizeof(float));
  EXPECT_EQ(totals["comm.send_receive"].seconds, 0);
}

}  // namespace
}  // namespace longspan

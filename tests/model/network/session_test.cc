// A session reads its batches without a wait, and only what are batches of its size.
#include <gtest/gtest.h>

#include <vector>

#include "parallel/comm/local_comm.h"
#include "tests/support/model_case.h"

namespace longspan {
namespace {

// Streams run as late as they may: each slot's batch stays as it was loaded until the stream has come past it.
TEST(Session, SlotsAreApart) {
  SetCpuStreamMode(CpuStreamMode::kReorder, 3);
  {
    const auto self = MakeLocalCommunicator(TestCpu());
    ModelCase model(SmallConfig(), *self, DType::kF32);
    Session& session = model.session;
    session.compute().Synchronize();
    const Tensor& tokens = session.inputs().tokens;
    std::vector<int32_t> first(tokens.size());
    Batch batch = model.batch;
    batch.tokens.assign(batch.tokens.size(), 1);
    session.Load(batch, 0.5, 0);
    session.device().Copy(session.compute(), HostView(first.data(), tokens.shape), tokens);
    batch.tokens.assign(batch.tokens.size(), 2);
    session.Load(batch, 0.25, 1);
    batch.tokens.assign(batch.tokens.size(), 3);  // the batch itself may be reused at once
    session.compute().Synchronize();
    EXPECT_EQ(first, std::vector<int32_t>(first.size(), 1));
    EXPECT_EQ(session.ToHost<int32_t>(tokens), std::vector<int32_t>(first.size(), 2));
    EXPECT_EQ(session.ToHost<double>(session.inputs().loss_scale), std::vector<double>{0.25});
  }
  SetCpuStreamMode(CpuStreamMode::kImmediate);
}

// Nothing is read beyond its end.
TEST(Session, ABatchOfAnotherLengthIsRefused) {
  const auto self = MakeLocalCommunicator(TestCpu());
  ModelCase model(SmallConfig(), *self, DType::kF32);
  const auto without_its_last = [&](std::vector<int32_t> Batch::*part) {
    Batch batch = model.batch;
    (batch.*part).pop_back();
    return batch;
  };
  for (auto part : {&Batch::tokens, &Batch::targets, &Batch::positions, &Batch::summary_positions, &Batch::doc_start}) {
    EXPECT_THROW(model.session.Load(without_its_last(part)), Error);
  }
}

}  // namespace
}  // namespace longspan

// An event file read back as TensorBoard does: lengths, checksums, events.
#include "launch/report/tensorboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "launch/report/event.pb.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

template <typename T>
T Take(std::string* bytes) {
  T value;
  std::memcpy(&value, bytes->data(), sizeof(T));
  bytes->erase(0, sizeof(T));
  return value;
}

uint32_t Masked(std::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

TEST(TensorBoard, TheChecksumIsCastagnolis) { EXPECT_EQ(Crc32c("123456789"), 0xE3069283U); }

TEST(TensorBoard, EveryStepIsAnEvent) {
  const TempFolder folder;
  ReportedRun run;
  run.data.folder = folder / "run";
  run.summary.header.set_unix_seconds(1000);
  run.metrics.steps = {{.step = 1, .loss = 3, .tokens = 10, .tokens_per_second = 5, .memory = 1 << 20},
                       {.step = 2, .loss = NAN, .tokens = 10, .tokens_per_second = 5, .memory = 1 << 20}};
  run.metrics.evaluations = {{2, 2.5}};
  const std::string path = WriteTensorBoard(run, folder / "board");
  EXPECT_EQ(path, folder / "board/events.out.tfevents.1000.run");
  std::string bytes = ReadFile(path);
  std::vector<proto::TensorBoardEvent> events;
  while (!bytes.empty()) {
    const std::string head = bytes.substr(0, 8);
    const auto length = Take<uint64_t>(&bytes);
    ASSERT_EQ(Take<uint32_t>(&bytes), Masked(head));
    const std::string body = bytes.substr(0, length);
    bytes.erase(0, length);
    ASSERT_EQ(Take<uint32_t>(&bytes), Masked(body));
    ASSERT_TRUE(events.emplace_back().ParseFromString(body));
  }
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].step(), 1);
  EXPECT_EQ(events[1].wall_time(), 1002);
  EXPECT_EQ(events[1].summary().value(0).tag(), "loss/training");
  EXPECT_EQ(events[1].summary().value(0).simple_value(), 3);
  EXPECT_EQ(events[2].summary().value(0).tag(), "speed/tokens_per_second");  // that has no loss
  const auto& last = *events[2].summary().value().rbegin();
  EXPECT_EQ(last.tag(), "loss/held_out");
  EXPECT_EQ(last.simple_value(), 2.5);
}

}  // namespace
}  // namespace longspan

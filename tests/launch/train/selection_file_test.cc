// Selection files: what is written is read back, and what does not fit is refused by name.
#include "launch/train/selection_file.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/files.h"

namespace longspan {
namespace {

constexpr int64_t kBlock = 8;
const Shape kShape = {20, 2, 3};  // [S,G,N]

// The first and the last visible block of every token's document, which begins at 0 or 16.
std::vector<int32_t> Ends() {
  std::vector<int32_t> selected(kShape.count(), -1);
  for (int32_t t = 0; t < 20; ++t) {
    const int32_t first = t < 16 ? 0 : 2, last = t / 8;
    for (int32_t g = 0; g < 2; ++g) {
      selected[(t * 2 + g) * 3] = first;
      if (last > first) selected[(t * 2 + g) * 3 + 1] = last;
    }
  }
  return selected;
}

std::vector<int32_t> DocStart() {
  std::vector<int32_t> starts(20, 0);
  std::fill(starts.begin() + 16, starts.end(), 16);
  return starts;
}

class SelectionFileTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::vector<int32_t>& selected, const Shape& shape = kShape) {
    SelectionWriter writer(kBlock);
    writer.Add(name, selected, shape);
    writer.Write(folder_ / "file");
    return folder_ / "file";
  }
  TempFolder folder_;
};

TEST_F(SelectionFileTest, ReadsWhatWasWritten) {
  const SelectionFile file(Write(kSelected, Ends()), kBlock);
  EXPECT_EQ(file.shape(kSelected), kShape);
  EXPECT_EQ(file.Read(kSelected), Ends());
  EXPECT_EQ(file.Read(kSelected, kShape, DocStart()), Ends());
  EXPECT_TRUE(file.sequences().empty());
}

// Two bytes a block until an index needs more.
TEST_F(SelectionFileTest, TakesTheNarrowestType) {
  for (const int32_t block : {65534, 65535}) {
    const std::vector<int32_t> selected = {0, block, -1};
    const std::string path = Write(kSelected, selected, {1, 1, 3});
    EXPECT_EQ(SafetensorsFile::Open(path).Get(kSelected).dtype, block < 65535 ? DType::kU16 : DType::kI32);
    EXPECT_EQ(SelectionFile(path, kBlock).Read(kSelected), selected);
  }
}

TEST_F(SelectionFileTest, NamesSequencesAndLayers) {
  SelectionWriter writer(kBlock);
  for (const auto& [sequence, layer] : {std::pair(12, 0), std::pair(3, 10), std::pair(3, 2)}) {
    writer.Add(SelectionName(sequence, layer), Ends(), kShape);
  }
  writer.Write(folder_ / "file");
  const SelectionFile file(folder_ / "file", kBlock);
  EXPECT_EQ(file.sequences(), (std::vector<int64_t>{3, 12}));
  EXPECT_EQ(file.layers(3), (std::vector<int64_t>{2, 10}));
  EXPECT_EQ(file.layers(12), (std::vector<int64_t>{0}));
  EXPECT_EQ(SelectionName(3, 10), "sequences.3.layers.10.selected");
}

TEST_F(SelectionFileTest, RefusesWhatDoesNotFit) {
  const std::string path = Write(kSelected, Ends());
  ExpectError(ExitCode::kData, {"file: metadata: select_block", "blocks of 16 tokens, found 8"},
              [&] { SelectionFile(path, 16); });
  const SelectionFile file(path, kBlock);
  const auto refuse = [&](const Shape& shape) {
    ExpectError(ExitCode::kData, {"file: selected", "expected [S,G,N] = " + shape.ToString(), "found [20,2,3]"},
                [&] { file.Read(kSelected, shape, {}); });
  };
  refuse({24, 2, 3});
  refuse({20, 1, 3});
  refuse({20, 2, 4});
  ExpectError(ExitCode::kData, {"expected a tensor \"selected\""},
              [&] { SelectionFile(Write(SelectionName(0, 0), Ends()), kBlock).Read(kSelected); });

  WriteSafetensors(folder_ / "file", {{kSelected, HostView(Ends().data(), {20, 6})}}, {{"select_block", "8"}});
  ExpectError(ExitCode::kData, {"selected", "U16 or I32 [S,G,N], found I32 [20,6]"},
              [&] { SelectionFile(path, kBlock).Read(kSelected); });
  WriteSafetensors(folder_ / "file", {{kSelected, HostView(Ends().data(), kShape)}});
  ExpectError(ExitCode::kData, {"select_block", "found none"}, [&] { SelectionFile(path, kBlock); });
}

TEST_F(SelectionFileTest, RefusesBlocksThatQueriesCannotSee) {
  const auto refuse = [&](std::vector<int32_t> row, const std::string& what) {
    std::vector<int32_t> selected = Ends();
    std::copy(row.begin(), row.end(), selected.begin() + (17 * 2 + 1) * 3);
    const SelectionFile file(Write(kSelected, selected), kBlock);
    ExpectError(ExitCode::kData, {"file: selected[17,1," + what, "expected blocks 2 to 2 of the token's document"},
                [&] { file.Read(kSelected, kShape, DocStart()); });
  };
  refuse({0, 2, -1}, "0] = 0");
  refuse({3, -1, -1}, "0] = 3");
  refuse({2, 2, -1}, "1] = 2");
  refuse({-1, 2, -1}, "1] = 2");
  refuse({-2, -1, -1}, "0] = -2");
}

}  // namespace
}  // namespace longspan

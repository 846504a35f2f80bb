// Arena: planned tensors, alignment, poison; tensor views.
#include "runtime/memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <vector>

#include "runtime/host_buffer.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

TEST(Arena, CutsPlannedTensorsFromPoisonedMemory) {
  const auto device = MakeCpuDevice();
  Arena arena;
  Tensor a, b, c;
  arena.Reserve(&a, MemoryUse::kWeights, "a", DType::kF32, {3, 5});
  arena.Reserve(&b, MemoryUse::kActivations, "b", DType::kF64, {7});
  arena.Reserve(&c, MemoryUse::kWeights, "c", DType::kI32, {1});
  EXPECT_FALSE(a);
  arena.Commit(*device);
  EXPECT_EQ(a.shape, (Shape{3, 5}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data) % 64, 0u);
  EXPECT_EQ(static_cast<char*>(c.data) - static_cast<char*>(a.data), 256);
  for (int i = 0; i < 15; ++i) EXPECT_TRUE(std::isnan(a.As<float>()[i]));
  for (int i = 0; i < 7; ++i) EXPECT_TRUE(std::isnan(b.As<double>()[i]));
  EXPECT_THROW(arena.Reserve(&a, MemoryUse::kWeights, "late", DType::kF32, {1}), Error);

  const auto rows = arena.Rows();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].tensors, 2);
  EXPECT_EQ(rows[0].bytes, 512);
  EXPECT_EQ(rows[0].largest, "a");
  const std::string table = MemoryTable(rows, int64_t{1} << 30, {{"offloaded", 0}, {"checkpoints", 3 << 20}});
  EXPECT_NE(table.find("  checkpoints                   3.00  of host memory\n"), std::string::npos) << table;
  EXPECT_EQ(table.find("offloaded"), std::string::npos);
  EXPECT_NE(table.find("weights"), std::string::npos);
  EXPECT_NE(table.find("of 1024 MiB available"), std::string::npos);
}

TEST(Arena, TensorsWithoutElementsHaveTheirShape) {
  const auto device = MakeCpuDevice();
  Arena arena;
  Tensor none;
  arena.Reserve(&none, MemoryUse::kOptimizer, "none", DType::kF64, {0, 3});
  arena.Commit(*device);
  EXPECT_EQ(none.size(), 0);
  EXPECT_EQ(none.shape, (Shape{0, 3}));
}

TEST(Arena, LaysWhatIsUsedByTurnsOverEachOther) {
  const auto device = MakeCpuDevice();
  Arena arena;
  Tensor before, first, second, third, weight, after, even, odd, even_again;
  const auto reserve = [&](Tensor* slot, MemoryUse use, int64_t floats) {
    arena.Reserve(slot, use, "x", DType::kF32, {floats});
  };
  reserve(&before, MemoryUse::kActivations, 64);
  arena.BeginTurn(MemoryUse::kActivations);
  arena.BeginTurn(MemoryUse::kKept, 0);
  reserve(&first, MemoryUse::kActivations, 64);
  reserve(&weight, MemoryUse::kWeights, 64);
  reserve(&even, MemoryUse::kKept, 64);
  arena.EndTurns();
  reserve(&after, MemoryUse::kActivations, 64);
  arena.BeginTurn(MemoryUse::kActivations);
  arena.BeginTurn(MemoryUse::kKept, 1);
  reserve(&second, MemoryUse::kActivations, 64);
  reserve(&third, MemoryUse::kActivations, 128);
  reserve(&odd, MemoryUse::kKept, 64);
  arena.BeginTurn(MemoryUse::kKept, 0);
  reserve(&even_again, MemoryUse::kKept, 128);
  arena.EndTurns();
  arena.Commit(*device);
  const auto distance = [](const Tensor& from, const Tensor& to) {
    return static_cast<char*>(to.data) - static_cast<char*>(from.data);
  };
  EXPECT_EQ(first.data, second.data);
  EXPECT_EQ(distance(second, third), 256);
  EXPECT_EQ(distance(before, after), 256);
  EXPECT_EQ(distance(before, first), 512);
  EXPECT_EQ(even.data, even_again.data);
  EXPECT_EQ(distance(even, odd), 512);  // lanes lie side by side
  const auto rows = arena.Rows();
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1].bytes, 512 + 256);              // kept: the longer turn of lane 0, lane 1
  EXPECT_EQ(rows[2].bytes, 256 + 256 + 256 + 512);  // before, after, second, third
  EXPECT_EQ(arena.bytes(), 256 + rows[1].bytes + rows[2].bytes);
}

TEST(Tensor, ViewsRowsAndRefusesTheWrongType) {
  float data[12] = {};
  for (int i = 0; i < 12; ++i) data[i] = static_cast<float>(i);
  const Tensor t = HostView(data, {4, 3});
  EXPECT_EQ(t.Rows(2, 1).As<float>()[1], 7);
  EXPECT_EQ(t.Reshape({2, 6}).dim(1), 6);
  EXPECT_THROW(t.As<double>(), Error);
  EXPECT_THROW(t.Rows(3, 2), Error);
  EXPECT_THROW(t.Reshape({5}), Error);
}

TEST(Error, NamesRankAndPlace) {
  SetProcessIdentity(3, 8, "node7");
  try {
    LS_CHECK(1 == 2, "expected {}, found {}", 1, 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kRankFailed);
    EXPECT_EQ(std::string(error.what()).find("[rank 3/8 node7] tests/runtime/memory_test.cc:"), 0u) << error.what();
    EXPECT_NE(std::string(error.what()).find("expected 1, found 2"), std::string::npos);
  }
}

// Who wrote the wrong file looks for that one.
TEST(Error, OfTheUsersInputNamesNoSource) {
  SetProcessIdentity(3, 8, "node7");
  for (const ExitCode code : {ExitCode::kUsage, ExitCode::kData, ExitCode::kIo, ExitCode::kConfig}) {
    try {
      Fail(code, "in.bin: expected {}, found {}", 1, 2);
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "[rank 3/8 node7] in.bin: expected 1, found 2");
    }
  }
}

TEST(HeldMemory, KnowsTheMostAtATimeOfEachUseAndOfAll) {
  const auto device = MakeCpuDevice();
  const auto take = [](const std::string& use, bool host = false) {
    for (const HeldMemory& held : TakeHeldMemory()) {
      if (held.use == use && held.host == host) return held;
    }
    return HeldMemory{};
  };
  const int64_t before = take("").bytes;
  {
    Buffer first(*device, 1000, "first");
    { const Buffer second(*device, 2000, "second"); }
    const Buffer third(*device, 500, "first"), taken = std::move(first);
    EXPECT_EQ(take("first").bytes, 1500);
    HostBuffer host("first");
    host.Get(*device, 10);
    host.Get(*device, 100);
    EXPECT_EQ(take("first", /*host=*/true).bytes, 100);
  }
  { const Buffer first(*device, 700, "first"); }
  TakeHeldMemory();
  EXPECT_EQ(take("first").bytes, 0);
  EXPECT_EQ(take("first").most, 0);  // since the last call
  {
    const Buffer first(*device, 1000, "first");
    { const Buffer second(*device, 2000, "second"); }
    const Buffer third(*device, 1500, "third");
  }
  std::map<std::string, int64_t> most;
  for (const HeldMemory& held : TakeHeldMemory()) most[(held.host ? "host " : "") + held.use] = held.most;
  EXPECT_EQ(most["first"], 1000);
  EXPECT_EQ(most["second"], 2000);
  EXPECT_EQ(most[""], before + 3000);
  EXPECT_EQ(most["host first"], 0);
}

// The process's own memory, whatever files it has mapped and read.
TEST(AnonymousBytes, AreNotThoseOfMappedFiles) {
  constexpr int64_t kBytes = int64_t{32} << 20;
  const int64_t before = AnonymousBytes();
  ASSERT_GT(before, 0);
  std::FILE* const file = std::tmpfile();
  ASSERT_EQ(ftruncate(fileno(file), kBytes), 0);
  const auto* const mapped = static_cast<const char*>(mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fileno(file), 0));
  ASSERT_NE(mapped, MAP_FAILED);
  int64_t sum = 0;
  for (int64_t i = 0; i < kBytes; i += 4096) sum += mapped[i];
  EXPECT_EQ(sum, 0);
  EXPECT_LT(AnonymousBytes(), before + kBytes / 2);
  const std::vector<char> own(kBytes, 1);
  EXPECT_GT(AnonymousBytes(), before + kBytes / 2);
  EXPECT_EQ(own.back(), 1);
  munmap(const_cast<char*>(mapped), kBytes);
  std::fclose(file);
}

TEST(HostMemory, ControlGroupsLimitIt) {
  const TempFolder folder;
  const std::string root = folder / "root", inner = folder / "root/job/step";
  std::filesystem::create_directories(inner);
  EXPECT_EQ(ControlGroupBytes(root, inner), INT64_MAX);
  WriteFile(inner + "/memory.max", "max\n");
  WriteFile(inner + "/memory.current", "900\n");
  EXPECT_EQ(ControlGroupBytes(root, inner), INT64_MAX);
  WriteFile(folder / "root/job/memory.max", "1000\n");
  WriteFile(folder / "root/job/memory.current", "900\n");
  EXPECT_EQ(ControlGroupBytes(root, inner), 100);
  WriteFile(folder / "root/job/memory.stat", "anon 600\ninactive_file 200\nactive_file 50\n");
  EXPECT_EQ(ControlGroupBytes(root, inner), 350);
  WriteFile(inner + "/memory.max", "800\n");
  EXPECT_EQ(ControlGroupBytes(root, inner), 0);
  EXPECT_GT(AvailableHostBytes(), 0);
}

}  // namespace
}  // namespace longspan

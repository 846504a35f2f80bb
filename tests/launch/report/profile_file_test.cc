// A rank's file: what was added is read, a torn end is left out and written over.
#include "launch/report/profile_file.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "launch/report/profile_data.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

proto::Entry NameEntry(uint32_t id, const std::string& text) {
  proto::Entry entry;
  entry.mutable_name()->set_id(id);
  entry.mutable_name()->set_text(text);
  return entry;
}

struct ProfileEntries : ProfileExtent {
  std::vector<proto::Entry> entries;
};

ProfileEntries ReadEntries(const std::string& path) {
  ProfileEntries found;
  static_cast<ProfileExtent&>(found) =
      ReadProfileFile(path, [&](const proto::Entry& entry) { found.entries.push_back(entry); });
  return found;
}

TEST(ProfileFile, EveryWholeEntryIsRead) {
  const TempFolder folder;
  const std::string path = folder / "a/b/rank.pb";
  {
    ProfileFile file(path, false);
    for (uint32_t id = 1; id <= 20; ++id) file.Add(NameEntry(id, std::string(10 * id, 'x')));
    EXPECT_EQ(ReadFile(path), "");  // in memory until Write
    file.Write();
  }
  const std::string bytes = ReadFile(path);
  size_t before = 0;
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    WriteFile(path, bytes.substr(0, cut));
    const ProfileEntries found = ReadEntries(path);
    EXPECT_EQ(found.whole_bytes + found.torn_bytes, cut);
    EXPECT_GE(found.entries.size(), before);
    before = found.entries.size();
    for (size_t i = 0; i < found.entries.size(); ++i) EXPECT_EQ(found.entries[i].name().id(), i + 1);
  }
  EXPECT_EQ(before, 20U);
}

TEST(ProfileFile, AppendsBehindTheLastWholeEntry) {
  const TempFolder folder;
  const std::string path = folder / "rank.pb";
  {
    ProfileFile file(path, true);
    file.Add(NameEntry(1, "one"));
    file.Add(NameEntry(2, "two"));
    file.Write();
  }
  const std::string bytes = ReadFile(path);
  WriteFile(path, bytes.substr(0, bytes.size() - 2));
  {
    ProfileFile file(path, true);
    file.Add(NameEntry(3, "three"));
    file.Write();
  }
  const ProfileEntries found = ReadEntries(path);
  ASSERT_EQ(found.entries.size(), 2U);
  EXPECT_EQ(found.entries[1].name().text(), "three");
  EXPECT_EQ(found.torn_bytes, 0);
  { const ProfileFile file(path, false); }
  EXPECT_EQ(ReadFile(path), "");
}

TEST(ProfileFile, OfALongRunSumsAndMeansAreKept) {
  constexpr int kWrites = 10'000;
  const TempFolder folder;
  {
    ProfileFile file(folder / "profile/rank00000.pb", false);
    proto::Entry header;
    header.mutable_header()->set_session(1);
    header.mutable_header()->set_ranks(1);
    file.Add(header);
    file.Add(NameEntry(1, "window"));
    for (int i = 0; i < kWrites; ++i) {
      proto::Entry gpu, layers;
      gpu.mutable_gpu()->set_begin(int64_t{1'000'000'000} * i);
      gpu.mutable_gpu()->set_sm_clock(1980);
      file.Add(gpu);
      for (const uint32_t layer : {1, 2}) {
        proto::Cell& cell = *layers.mutable_layers()->add_cells();
        cell.set_layer(layer);
        cell.set_stage(1);
        cell.set_time(1'000'000);
      }
      file.Add(layers);
    }
    file.Write();
  }
  const ProfileData data = ReadProfiles(folder / "");
  ASSERT_EQ(data.ranks.size(), 1U);
  const RankProfile& rank = data.ranks[0];
  ASSERT_EQ(rank.layers.size(), 2U);
  for (const ProfileCell& cell : rank.layers) EXPECT_NEAR(cell.seconds, 1e-3 * kWrites, 1e-6);
  EXPECT_LE(rank.gpu.list.size(), ProfileGpus::kMost);
  EXPECT_EQ(rank.gpu.list.back().last.at, kWrites - 1);
  int64_t readings = 0;
  for (const ProfileGpu& gpu : rank.gpu.list) readings += gpu.readings;
  EXPECT_EQ(readings, kWrites);
}

TEST(ProfileFile, WhatIsNoProfileHoldsNone) {
  const TempFolder folder;
  WriteFile(folder / "text", "not a profile at all, but some text that is longer than a message");
  WriteFile(folder / "zeros", std::string(1000, '\0'));
  WriteFile(folder / "ones", std::string(1000, '\xFF'));
  EXPECT_EQ(ReadEntries(folder / "ones").entries.size(), 0U);
  for (const char* name : {"text", "zeros"}) {
    for (const proto::Entry& entry : ReadEntries(folder / name).entries) EXPECT_FALSE(entry.has_header());
  }
  EXPECT_THROW(ReadEntries(folder / "none"), Error);
}

}  // namespace
}  // namespace longspan

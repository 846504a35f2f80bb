// A rank's file: what was added is read, a torn end is left out and written over.
#include "launch/report/profile_file.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "tests/support/files.h"

namespace longspan {
namespace {

proto::Entry NameEntry(uint32_t id, const std::string& text) {
  proto::Entry entry;
  entry.mutable_name()->set_id(id);
  entry.mutable_name()->set_text(text);
  return entry;
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
    const ProfileEntries found = ReadProfileFile(path);
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
  const ProfileEntries found = ReadProfileFile(path);
  ASSERT_EQ(found.entries.size(), 2U);
  EXPECT_EQ(found.entries[1].name().text(), "three");
  EXPECT_EQ(found.torn_bytes, 0);
  { const ProfileFile file(path, false); }
  EXPECT_EQ(ReadFile(path), "");
}

TEST(ProfileFile, WhatIsNoProfileHoldsNone) {
  const TempFolder folder;
  WriteFile(folder / "text", "not a profile at all, but some text that is longer than a message");
  WriteFile(folder / "zeros", std::string(1000, '\0'));
  WriteFile(folder / "ones", std::string(1000, '\xFF'));
  EXPECT_EQ(ReadProfileFile(folder / "ones").entries.size(), 0U);
  for (const char* name : {"text", "zeros"}) {
    for (const proto::Entry& entry : ReadProfileFile(folder / name).entries) EXPECT_FALSE(entry.has_header());
  }
  EXPECT_THROW(ReadProfileFile(folder / "none"), Error);
}

}  // namespace
}  // namespace longspan

// JsonLines and what is below it: texts of plain and compressed files; broken, cut-off, overlong and hostile ones.
#include "launch/data/json_lines.h"

#include "tests/support/files.h"

namespace longspan {
namespace {

using Texts = std::vector<std::string>;

// {"text": "one"}, then {"id": 7, "text": "two"}; as gzip and zstd write them.
const std::string kGzip(
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x2a\x49\xad\x28\x51\xb2\x52\x50\xca\xcf\x4b\x55\xaa\xe5\xaa\x56"
    "\xca"
    "\x4c\x01\xf2\xcc\x75\x14\xe0\x12\x25\xe5\xf9\x40\x09\x00\x64\xac\xa8\x03\x29\x00\x00\x00",
    51);
// {"text": "x.."} of 200 x, with a checksum of its own.
const std::string kZstd(
    "\x28\xb5\x2f\xfd\x24\xd5\xad\x00\x00\x70\x7b\x22\x74\x65\x78\x74\x22\x3a\x20\x22\x78\x22\x7d\x0a\x01\x00\x44\x0a"
    "\x78"
    "\x01\x33\x8f\xd8\x2b",
    34);

class JsonLinesTest : public testing::Test {
 protected:
  Texts Read(const std::string& bytes, const std::string& key = "text", int64_t longest = JsonLines::kLongestLine) {
    WriteFile(path_, bytes);
    JsonLines lines(path_, key, longest);
    Texts texts;
    for (std::string text; lines.Next(&text);) texts.push_back(text);
    EXPECT_EQ(lines.consumed(), static_cast<int64_t>(bytes.size()));
    return texts;
  }
  void ExpectBad(const std::string& bytes, std::initializer_list<std::string> parts, int64_t longest = 1000) {
    ExpectError(ExitCode::kData, {path_}, [&] { Read(bytes, "text", longest); });
    ExpectError(ExitCode::kData, parts, [&] { Read(bytes, "text", longest); });
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "set.jsonl";
};

TEST_F(JsonLinesTest, EveryLineIsAText) {
  EXPECT_EQ(Read("{\"text\": \"one\"}\n{\"id\": 7, \"text\": \"two\"}\n"), (Texts{"one", "two"}));
  EXPECT_EQ(Read("\xEF\xBB\xBF{\"text\":\"a\"}\r\n \t\r\n\n{\"text\":\"b\"}"),
            (Texts{"a", "b"}));  // the last without end
  EXPECT_EQ(Read("{\"text\": \"\", \"content\": \"\\u00e4\\n\\ud83d\\ude00\\u0000.\"}", "content"),
            (Texts{std::string("ä\n😀\0.", 9)}));
  EXPECT_EQ(Read("{\"meta\": {\"text\": 1, \"a\": [{\"text\": []}]}, \"text\": \"outermost\"}"), (Texts{"outermost"}));
  EXPECT_EQ(Read(""), Texts{});
  ExpectError(ExitCode::kIo, {"none"}, [&] { JsonLines(folder_ / "none", "text"); });
}

TEST_F(JsonLinesTest, LinesLongerThanWhatIsReadAtATime) {
  const std::string a(300'000, 'a'), b(700'000, 'b');
  EXPECT_EQ(Read("{\"text\":\"" + a + "\"}\n{\"text\":\"c\"}\n{\"text\":\"" + b + "\"}\n"), (Texts{a, "c", b}));
}

TEST_F(JsonLinesTest, GzipAndZstandard) {
  EXPECT_EQ(Read(kGzip), (Texts{"one", "two"}));
  EXPECT_EQ(Read(kGzip + kGzip), (Texts{"one", "two", "one", "two"}));
  WriteFile(path_, kGzip + std::string(512, '\0'));
  JsonLines padded(path_, "text");
  std::string text;
  EXPECT_TRUE(padded.Next(&text) && padded.Next(&text));
  EXPECT_FALSE(padded.Next(&text));
  EXPECT_EQ(Read(kZstd + kZstd), (Texts{std::string(200, 'x'), std::string(200, 'x')}));
}

TEST_F(JsonLinesTest, BrokenAndCutOffCompressionIsRefused) {
  for (size_t size = 2; size < kGzip.size(); ++size) ExpectBad(kGzip.substr(0, size), {"gzip's data", "end"});
  for (size_t size = 4; size < kZstd.size(); ++size) ExpectBad(kZstd.substr(0, size), {"Zstandard's data", "end"});
  std::string changed = kGzip;
  changed[45] = static_cast<char>(changed[45] ^ 1);
  ExpectBad(changed, {"byte ", "incorrect data check"});
  changed = kZstd;
  changed.back() = static_cast<char>(changed.back() ^ 1);
  ExpectBad(changed, {"byte ", "checksum"});
  ExpectBad(kGzip + "more", {"gzip's data", "incorrect header"});
  ExpectBad(kZstd + "more", {"Zstandard's data"});
}

TEST_F(JsonLinesTest, WhatIsNoTextIsNamedByLine) {
  const std::string good = "{\"text\": \"a\"}\n";
  ExpectBad(good + "{\"txt\": \"a\"}\n", {":2: expected a text under \"text\", found no such key"});
  ExpectBad(good + good + "{\"text\": 5}\n", {":3: expected a text under \"text\", found a number"});
  ExpectBad("{\"text\": null}", {":1: ", "found null"});
  ExpectBad("{\"text\": [\"a\"]}", {"found a list"});
  ExpectBad("{\"text\": {\"text\": \"a\"}}", {"found an object"});
  ExpectBad("[\"text\"]", {"an object of JSON, found a list"});
  ExpectBad("\"text\"", {"an object of JSON, found a text"});
  ExpectBad(good + "{\"text\": \"cut", {":2: expected an object of JSON: ", "missing closing quote"});
  ExpectBad(good + "{\"text\": \"a\"} {\"text\": \"b\"}", {":2: expected an object of JSON"});
  ExpectBad("{\"text\": \"\xff\xfe\"}", {"UTF-8"});
  ExpectBad("{\"text\": \"\\ud83d\"}", {":1: expected an object of JSON"});
  ExpectBad("a text, not compressed and no JSON", {":1: expected an object of JSON"});
}

// Neither a line without end nor a depth without end takes more than its bytes.
TEST_F(JsonLinesTest, OverlongAndHostileLinesAreRefused) {
  ExpectBad("{\"text\": \"a\"}\n{\"text\": \"" + std::string(2000, 'a'), {":2: expected a line of at most 1000 bytes"});
  const std::string deep = "{\"a\": " + std::string(2'000'000, '[');
  ExpectBad(deep, {":1: expected an object of JSON"}, int64_t{1} << 30);
  std::string nested = deep + std::string(2'000'000, ']') + ", \"text\": \"found\"}";
  EXPECT_EQ(Read(nested), Texts{"found"});
}

}  // namespace
}  // namespace longspan

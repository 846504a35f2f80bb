// Text that appears token by token.
#include "launch/data/text_stream.h"

#include <gtest/gtest.h>

#include <random>

namespace longspan {
namespace {

std::string Add(TextStream& stream, int32_t id) { return stream.Add({&id, 1}); }

TEST(TextStream, CharactersComeWhole) {
  const auto bytes = MakeByteTokenizer();
  TextStream stream(*bytes);
  const std::string text = "a\u00e4\u20ac\U0001F600z";  // of 1, 2, 3, 4 and 1 bytes
  std::vector<std::string> said;
  for (const char c : text) said.push_back(Add(stream, static_cast<uint8_t>(c)));
  EXPECT_EQ(said, (std::vector<std::string>{"a", "", "\u00e4", "", "", "\u20ac", "", "", "", "\U0001F600", "z"}));
  EXPECT_EQ(stream.Rest(), "");
}

TEST(TextStream, WhatNeverBecomesACharacterComesToo) {
  const auto bytes = MakeByteTokenizer();
  TextStream stream(*bytes);
  std::string said;
  for (const int id : {0x80, 0xE2, 0x78, 0xC3, 0xF0}) said += Add(stream, id);
  EXPECT_EQ(said, "\uFFFD\uFFFDx\uFFFD");
  EXPECT_EQ(stream.Rest(), "\uFFFD");
}

TEST(TextStream, NothingControlsATerminal) {
  EXPECT_EQ(Printable("a\tb\n"), "a\tb\n");
  EXPECT_EQ(Printable("\x1b[2J\x7f\r"), "\uFFFD[2J\uFFFD\uFFFD");
  EXPECT_EQ(Printable("\xC0\x80\xE2\x82"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

// As SentencePiece's byte pieces: what is no character is U+FFFD for each byte. Counts what it decodes.
class Replacing : public Tokenizer {
 public:
  std::string kind() const override { return "replacing"; }
  std::string hash() const override { return ""; }
  int64_t vocab() const override { return 256; }
  std::vector<int32_t> Encode(std::string_view) const override { return {}; }
  Tokens EncodePlaced(std::string_view) const override { return {}; }
  std::string Decode(std::span<const int32_t> ids) const override {
    decoded += ids.size();
    std::string bytes;
    for (const int32_t id : ids) bytes += static_cast<char>(id);
    return Printable(bytes);
  }
  std::optional<uint8_t> Byte(int32_t id) const override { return static_cast<uint8_t>(id); }

  mutable size_t decoded = 0;
};

TEST(TextStream, AReplacementWaitsForWhatItBecomes) {
  const Replacing tokenizer;
  TextStream stream(tokenizer);
  EXPECT_EQ(Add(stream, 0xC3), "");
  EXPECT_EQ(Add(stream, 0xA4), "\u00e4");
  EXPECT_EQ(Add(stream, 'b'), "b");
}

TEST(TextStream, TakesAFewTokensEach) {
  std::mt19937 random(5);
  for (const int first : {0, 0x80, 0xE0}) {  // few, many and only parts of characters
    const Replacing tokenizer;
    std::vector<int32_t> ids(4000);
    for (int32_t& id : ids) id = static_cast<int32_t>(first + random() % (256 - first));
    const std::string all = tokenizer.Decode(ids);
    tokenizer.decoded = 0;
    TextStream stream(tokenizer);
    std::string said;
    for (const int32_t id : ids) said += Add(stream, id);
    EXPECT_EQ(said + stream.Rest(), all) << first;
    EXPECT_LT(tokenizer.decoded, 5 * ids.size()) << first;
  }
}

}  // namespace
}  // namespace longspan

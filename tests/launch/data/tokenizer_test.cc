#include "launch/data/tokenizer.h"

#include <google/protobuf/stubs/common.h>
#include <sentencepiece_trainer.h>

#include "launch/config/config.h"
#include "launch/data/dataset_builder.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

TEST(ByteTokenizer, EveryByteIsAnId) {
  const auto tokenizer = MakeTokenizer("byte", "");
  EXPECT_EQ(tokenizer->vocab(), 256);
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  const std::vector<int32_t> ids = tokenizer->Encode(all);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(ids[i], i);
  EXPECT_EQ(tokenizer->Decode(ids), all);
  EXPECT_TRUE(tokenizer->Encode("").empty());
  ExpectError(ExitCode::kData, {"256"}, [&] { tokenizer->Decode(std::vector<int32_t>{256}); });
}

// SentencePiece carries a protobuf of another version than the configuration's: each must use its own.
TEST(SentencePiece, EncodesWithATrainedModel) {
  GOOGLE_PROTOBUF_VERIFY_VERSION;
  const LoadedConfig loaded = ParseConfig("model { layers: 3 }", "test", {}, 1);
  EXPECT_EQ(loaded.config.model.layers, 3);
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 300; ++i) text += fmt::format("the ship {} sails over the wide sea {}\n", i % 17, i % 5);
  WriteFile(folder / "text", text);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      fmt::format("--input={} --model_prefix={} --vocab_size=60 --hard_vocab_limit=false --minloglevel=2",
                  folder / "text", folder / "small"));
  ASSERT_TRUE(status.ok()) << status.ToString();

  const auto tokenizer = MakeTokenizer("sentencepiece", folder / "small.model");
  const std::string line = "the ship 3 sails over the sea";
  const std::vector<int32_t> ids = tokenizer->Encode(line);
  EXPECT_LT(ids.size(), line.size());
  EXPECT_EQ(tokenizer->Decode(ids), line);
  for (const int32_t id : ids) EXPECT_LT(id, tokenizer->vocab());
  ExpectError(ExitCode::kData, {"small.model"}, [&] { tokenizer->Decode(std::vector<int32_t>{100000}); });

  // Text of which it leaves nothing makes no dataset.
  WriteFile(folder / "blank", " \n\n\t\n");
  DatasetBuilder builder(folder / "set", 0, *tokenizer);
  builder.Add(MappedFile(folder / "blank"));
  ExpectError(ExitCode::kData, {"no token found", "5 bytes"}, [&] { builder.Finish(); });
}

TEST(SentencePiece, WhatIsNoModelIsRefusedByName) {
  TempFolder folder;
  WriteFile(folder / "bad.model", "this is no model");
  WriteFile(folder / "empty.model", "");
  ExpectError(ExitCode::kData, {"bad.model"}, [&] { LoadSentencePiece(folder / "bad.model"); });
  ExpectError(ExitCode::kData, {"empty.model", "empty"}, [&] { LoadSentencePiece(folder / "empty.model"); });
  ExpectError(ExitCode::kIo, {"none.model"}, [&] { LoadSentencePiece(folder / "none.model"); });
}

TEST(Tokenizer, NamesAndModelsMustFit) {
  ExpectError(ExitCode::kUsage, {"byte or sentencepiece", "\"bytes\""}, [] { MakeTokenizer("bytes", ""); });
  ExpectError(ExitCode::kUsage, {"--model"}, [] { MakeTokenizer("sentencepiece", ""); });
  ExpectError(ExitCode::kUsage, {"--model x"}, [] { MakeTokenizer("byte", "x"); });
}

}  // namespace
}  // namespace longspan

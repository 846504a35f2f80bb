#include "launch/data/tokenizer.h"

#include <google/protobuf/stubs/common.h>
#include <sentencepiece_trainer.h>

#include <random>

#include "launch/config/config.h"
#include "launch/data/dataset_builder.h"
#include "launch/data/encode_slice.h"
#include "launch/data/text_stream.h"
#include "launch/data/train_tokenizer.h"
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

// A model of this text.
std::unique_ptr<Tokenizer> Train(const TempFolder& folder, const std::string& text, const std::string& options) {
  WriteFile(folder / "text", text);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      fmt::format("--input={} --model_prefix={} --hard_vocab_limit=false --minloglevel=2 {}", folder / "text",
                  folder / "small", options));
  EXPECT_TRUE(status.ok()) << status.ToString();
  return MakeTokenizer("sentencepiece", folder / "small.model");
}

// Words with and without line ends and spaces between them, some of several bytes a character.
std::string Words(size_t bytes, const std::string& space, const std::string& line_end) {
  const char* const words[] = {"the", "ship", "sails", "übers", "weite", "meer", "морем", "海", "under", "calm"};
  std::string text;
  std::minstd_rand random(1);
  for (int i = 1; text.size() < bytes; ++i)
    text += words[random() % std::size(words)] + (i % 9 == 0 ? line_end : space);
  return text;
}

constexpr const char* kKeepsAll =
    "--vocab_size=340 --model_type=bpe --byte_fallback=true --normalization_rule_name=identity "
    "--remove_extra_whitespaces=false";

// A slice ends at no word: its tokens are those of the whole text.
TEST(SentencePiece, SlicesHaveTheTokensOfTheWholeText) {
  TempFolder folder;
  for (const char* options : {"--vocab_size=80", kKeepsAll}) {
    const auto tokenizer = Train(folder, Words(30000, " ", "\n"), options);
    for (const auto& [space, line_end] : {std::pair{" ", "\n"}, {" ", " "}, {"", ""}, {"  ", "\n\n"}}) {
      const std::string text = Words(kSliceBytes + 20000, space, line_end);
      std::vector<int32_t> ids;
      for (size_t slice = 0; slice < 2; ++slice) {
        const std::vector<int32_t> part = EncodeSlice(*tokenizer, text, slice);
        ids.insert(ids.end(), part.begin(), part.end());
      }
      EXPECT_TRUE(ids == tokenizer->Encode(text)) << options << ", '" << space << "', '" << line_end << "'";
    }
  }
  // Without a place to cut at, the first slice has it all.
  const auto tokenizer = Train(folder, std::string(3000, 'x') + "\n" + std::string(700, 'x'), "--vocab_size=12");
  const std::string text(kSliceBytes + 20000, 'x');
  std::vector<int32_t> ids;
  for (size_t slice = 0; slice < 2; ++slice) {
    const std::vector<int32_t> part = EncodeSlice(*tokenizer, text, slice);
    ids.insert(ids.end(), part.begin(), part.end());
  }
  EXPECT_TRUE(ids == tokenizer->Encode(text));
}

// Any tokens, control tokens and halves of characters too: said one by one they have the text of all.
TEST(SentencePiece, TextComesTokenByTokenAsAWhole) {
  TempFolder folder;
  std::mt19937 random(7);
  const std::string text = Words(30000, " ", "\n");
  for (const std::string options :
       {"--vocab_size=80", kKeepsAll, "--vocab_size=340 --byte_fallback=true --model_type=bpe",
        "--vocab_size=340 --byte_fallback=true --model_type=bpe --add_dummy_prefix=false"}) {
    const auto tokenizer = Train(folder, text, options);
    const auto pieces = static_cast<uint32_t>(tokenizer->vocab());
    for (int round = 0; round < 60; ++round) {
      const uint32_t among = round % 3 == 0 ? pieces : std::min(pieces, 259U);  // those first are marks and bytes
      std::vector<int32_t> ids(random() % 200);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % among);
      if (round % 3 == 2)
        ids = tokenizer->Encode(std::string(round % 4, ' ') + "海 \U0001F600 the ships " + text.substr(round, 90));
      TextStream stream(*tokenizer);
      std::string said;
      for (const int32_t& id : ids) said += stream.Add({&id, 1});
      ASSERT_EQ(said + stream.Rest(), Printable(tokenizer->Decode(ids))) << options << ", round " << round;
    }
  }
}

TEST(SentencePiece, TellsItsMarks) {
  TempFolder folder;
  const std::string text = Words(30000, " ", "\n");
  const TokenizerMarks usual = Train(folder, text, "--vocab_size=80")->marks();
  EXPECT_TRUE(usual.space_before_text);
  EXPECT_EQ(usual.unknown + usual.begin + usual.end + usual.padding, "<unk><s></s>");
  const TokenizerMarks other =
      Train(folder, text, "--vocab_size=80 --add_dummy_prefix=false --bos_id=-1 --pad_id=3 --eos_piece=<end>")->marks();
  EXPECT_FALSE(other.space_before_text);
  EXPECT_EQ(other.begin, "");
  EXPECT_EQ(other.end, "<end>");
  EXPECT_EQ(other.padding, "<pad>");
}

TEST(SentencePiece, SaysWhatItLoses) {
  TempFolder folder;
  const std::string text = Words(30000, " ", "\n");
  EXPECT_EQ(WhatIsLost(*Train(folder, text, "--vocab_size=80")),
            (std::vector<std::string>{"line ends", "runs of spaces", "tabs"}));
  EXPECT_TRUE(WhatIsLost(*Train(folder, text, kKeepsAll)).empty());
  EXPECT_TRUE(WhatIsLost(*MakeByteTokenizer()).empty());
}

TEST(SentencePiece, TheHashIsTheModels) {
  TempFolder folder;
  const std::string first = Train(folder, Words(30000, " ", "\n"), "--vocab_size=80")->hash();
  EXPECT_EQ(first.size(), 16u);
  EXPECT_EQ(MakeTokenizer("sentencepiece", folder / "small.model")->hash(), first);
  EXPECT_NE(Train(folder, Words(20000, " ", "\n"), "--vocab_size=80")->hash(), first);
}

// SentencePiece carries a protobuf of another version than the configuration's: each must use its own.
TEST(SentencePiece, EncodesWithATrainedModel) {
  GOOGLE_PROTOBUF_VERIFY_VERSION;
  const LoadedConfig loaded = ParseConfig("model { layers: 3 }", "test", {}, 1);
  EXPECT_EQ(loaded.config.model.layers, 3);
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 300; ++i) text += fmt::format("the ship {} sails over the wide sea {}\n", i % 17, i % 5);
  const auto tokenizer = Train(folder, text, "--vocab_size=60");
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

TEST(TokenizerTraining, GivesEveryTextBack) {
  const std::string text = Words(60000, " ", "\n") + "\tif (x == 12345) {\r\n        return  x;\n\n\n}  海 морем 😀\n";
  TextSample sample(1 << 20);
  sample.Add(text);
  TempFolder folder;
  for (const char* type : {"unigram", "bpe"}) {
    const std::string model = TrainTokenizer({.type = type, .vocab = 300}, sample);
    EXPECT_EQ(TrainTokenizer({.type = type, .vocab = 300}, sample), model);
    WriteFile(folder / "made.model", model);
    const auto tokenizer = LoadSentencePiece(folder / "made.model");
    EXPECT_EQ(tokenizer->vocab(), 300);
    EXPECT_EQ(tokenizer->model(), model);
    EXPECT_TRUE(WhatIsLost(*tokenizer).empty());
    for (const std::string& one :
         {text, std::string("  leading\t\n"), std::string("Ω≈ç√ not seen"), std::string(" ")}) {
      EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(one)), one) << type;
    }
    EXPECT_LT(tokenizer->Encode(text).size(), 3 * text.size() / 4);
  }
  TextSample small(1 << 20);
  small.Add("few\n");
  ExpectError(ExitCode::kUsage, {"--vocab 5000 --type bpe", "4 bytes", "Vocabulary size too high"},
              [&] { TrainTokenizer({.type = "bpe", .vocab = 5000}, small); });
}

TEST(TokenizerTraining, TheSampleIsSpreadEvenly) {
  TextSample all(1 << 20), part(2000);
  std::string text;
  for (int i = 0; i < 1000; ++i) text = fmt::format("{:09}\n", i), all.Add(text), part.Add(text);
  EXPECT_EQ(all.lines().size(), 1000U);
  EXPECT_EQ(all.bytes(), 10'000);
  EXPECT_EQ(part.seen_bytes(), 10'000);
  ASSERT_EQ(part.lines().size(), 125U);
  for (size_t i = 0; i < part.lines().size(); ++i) EXPECT_EQ(part.lines()[i], fmt::format("{:09}\n", 8 * i));
  // Long texts are cut at line ends, or between characters.
  TextSample cut(1 << 20);
  std::string lines;
  for (int i = 0; i < 3000; ++i) lines += fmt::format("{}\n", i);
  std::string wide = "a";
  for (int i = 0; i < 3000; ++i) wide += "海";
  cut.Add(lines);
  cut.Add(wide);
  std::string together;
  for (const std::string& line : cut.lines()) {
    EXPECT_LE(line.size(), TextSample::kLongestLine);
    EXPECT_NE(static_cast<uint8_t>(line[0]) & 0xC0, 0x80);
    together += line;
  }
  EXPECT_EQ(together, lines + wide);
  EXPECT_EQ(cut.lines()[0].back(), '\n');
}

TEST(SentencePiece, WhatIsNoModelIsRefusedByName) {
  TempFolder folder;
  WriteFile(folder / "bad.model", "this is no model");
  WriteFile(folder / "empty.model", "");
  ExpectError(ExitCode::kData, {"bad.model"}, [&] { LoadSentencePiece(folder / "bad.model"); });
  ExpectError(ExitCode::kData, {"empty.model", "empty"}, [&] { LoadSentencePiece(folder / "empty.model"); });
  WriteFile(folder / "tokenizer.json", "{\n  \"version\": \"1.0\", \"model\": {\"type\": \"BPE\"}}");
  ExpectError(ExitCode::kData, {"tokenizer.json", "Hugging Face's tokenizer.json is not read", "tokenizer train"},
              [&] { LoadSentencePiece(folder / "tokenizer.json"); });
  ExpectError(ExitCode::kIo, {"none.model"}, [&] { LoadSentencePiece(folder / "none.model"); });
}

TEST(Tokenizer, NamesAndModelsMustFit) {
  ExpectError(ExitCode::kUsage, {"byte or sentencepiece", "\"bytes\""}, [] { MakeTokenizer("bytes", ""); });
  ExpectError(ExitCode::kUsage, {"--model"}, [] { MakeTokenizer("sentencepiece", ""); });
  ExpectError(ExitCode::kUsage, {"--model x"}, [] { MakeTokenizer("byte", "x"); });
}

}  // namespace
}  // namespace longspan

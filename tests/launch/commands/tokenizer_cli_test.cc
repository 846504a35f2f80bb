// From texts to a tokenizer, a dataset and a trained model: the tokenizer's model travels with each.
#include <filesystem>

#include "tests/launch/train/tiny_run.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

using TokenizerCli = TinyRun;

TEST_F(TokenizerCli, TheModelTravelsWithDatasetAndCheckpoint) {
  std::string lines;
  for (int i = 0; i < 400; ++i) {
    const std::string text = fmt::format("int value_{} = {};\n\treturn value_{};\n", i % 7, i * i % 91, i % 3);
    WriteFile(folder_ / fmt::format("in/{:03}.c", i), text);
    lines += nlohmann::json{{"text", text}}.dump() + "\n";
  }
  WriteFile(folder_ / "in.jsonl", lines);
  const auto tokenizer = [&](const std::string& more) {
    return fmt::format("tokenizer train --vocab 300 --output '{}/{}", folder_ / "tok", more);
  };
  Expect(0, 1, tokenizer("a' --type bpe " + folder_ / "in"), {"of 400 files", "300 pieces", "tok/a.model, hash "});
  Expect(0, 1, tokenizer("b' --type bpe --jsonl text " + folder_ / "in.jsonl"), {"300 pieces"});
  EXPECT_EQ(ReadFile(folder_ / "tok/a.model"), ReadFile(folder_ / "tok/b.model"));
  Expect(64, 1, tokenizer("c' --type wordpiece " + folder_ / "in"), {"unigram or bpe"});
  Expect(64, 1, tokenizer("c'"), {"at least one folder or file"});
  Expect(65, 1, tokenizer("c' --jsonl body " + folder_ / "in.jsonl"), {"in.jsonl:1", "\"body\""});
  EXPECT_FALSE(fs::exists(folder_ / "tok/c.model"));

  const std::string model = ReadFile(folder_ / "tok/a.model");
  Expect(0, 1,
         fmt::format("data --tokenizer sentencepiece --model '{}' --output '{}' '{}'", folder_ / "tok/a.model",
                     folder_ / "set", folder_ / "in"),
         {"400 documents", ".tokenizer.model"});
  EXPECT_EQ(ReadFile(folder_ / "set.tokenizer.model"), model);

  const std::string keys =
      fmt::format("data.format=MEGATRON data.train='{}' model.vocab=300 data.validation_fraction=0 ", folder_ / "set");
  Expect(0, 2, Arguments(keys), {"done: 3 steps"});
  const std::string saved = folder_ / "runs/run/checkpoints/step-00000003";
  EXPECT_EQ(ReadFile(saved + "/tokenizer.model"), model);
  Expect(0, 1, "checkpoint verify " + saved, {"complete: "});
  std::filesystem::rename(folder_ / "tok/a.model", folder_ / "tok/moved.model");
  Expect(0, 1, "generate " + saved + " --prompt 'int value' --tokens 3", {"int value"});  // by its own
  Expect(0, 1, fmt::format("export {} '{}'", saved, folder_ / "exported"), {"written "});
  EXPECT_EQ(ReadFile(folder_ / "exported/tokenizer.model"), model);
  const auto config = nlohmann::json::parse(ReadFile(folder_ / "exported/tokenizer_config.json"));
  EXPECT_EQ(config["tokenizer_class"], "LlamaTokenizer");
  EXPECT_EQ(config["add_prefix_space"], false);  // of LlamaTokenizer's own it is true
  EXPECT_EQ(config["legacy"], true);
  EXPECT_EQ(config["unk_token"], "<unk>");
  EXPECT_EQ(config["pad_token"], nullptr);
  Expect(0, 1, fmt::format("import '{}' '{}'", folder_ / "exported", folder_ / "imported"), {"written "});
  Expect(0, 1, fmt::format("generate '{}' --prompt 'int value' --tokens 3", folder_ / "imported"), {"int value"});
  Expect(0, 2, Arguments(keys + "train.steps=5 --resume"), {"done: 2 steps"});
  WriteFile(saved + "/tokenizer.model", model.substr(1) + "x");
  Expect(65, 1, "checkpoint verify " + saved, {"tokenizer.model", "checksum"});

  // A model beside the dataset that is not the one it was made with travels nowhere.
  WriteFile(folder_ / "set.tokenizer.model", "another");
  Expect(0, 1, Arguments(keys + "name=other"), {"done: 3 steps"});
  EXPECT_FALSE(fs::exists(folder_ / "runs/other/checkpoints/step-00000003/tokenizer.model"));
}

}  // namespace
}  // namespace longspan

// `longspan generate`: text and ids from a saved run, and what is refused.
#include <gtest/gtest.h>

#include "tests/launch/train/tiny_run.h"

namespace longspan {
namespace {

class GenerateCommand : public TinyRun {
 protected:
  GenerateCommand() { Expect(0, 1, Arguments("data.validation_fraction=0"), {"done: 3 steps"}); }
  // What it prints, without the line that says how fast it was.
  std::string Generate(const std::string& arguments) {
    Expect(0, 1, fmt::format("generate '{}' {}", folder_ / "runs/run", arguments), {" tokens/s on cpu"});
    const size_t speed = said_.rfind(" tokens/s on cpu");
    const size_t line = said_.rfind('\n', speed);
    return line == std::string::npos ? "" : said_.substr(0, line + 1);
  }
  void ExpectRefused(int code, const std::string& arguments, const std::string& text) {
    Expect(code, 1, fmt::format("generate '{}' {}", folder_ / "runs/run", arguments), {text});
  }
};

TEST_F(GenerateCommand, WritesOnFromEachPrompt) {
  const std::string drawn = Generate("--ids --prompt '104 105' --tokens 70 --seed 5");
  EXPECT_EQ(drawn, Generate("--ids --prompt '104 105' --tokens 70 --seed 5"));
  EXPECT_NE(drawn, Generate("--ids --prompt '104 105' --tokens 70 --seed 6"));
  EXPECT_TRUE(drawn.starts_with("104 105 ")) << drawn;

  // As text, from a file, more than a sequence of training.
  WriteFile(folder_ / "prompt", std::string(100, 'h') + "i");
  const std::string text =
      Generate(fmt::format("--tokenizer byte --file '{}' --tokens 3 --temperature 0 --top-k 1", folder_ / "prompt"));
  EXPECT_TRUE(text.starts_with(std::string(100, 'h') + "i")) << text;

  // In a batch the likeliest tokens are those of each prompt alone.
  const std::string one = Generate("--ids --prompt 1 --tokens 20 --temperature 0");
  const std::string two = Generate("--ids --prompt '2 3 4' --tokens 20 --temperature 0");
  const std::string both = Generate("--ids --prompt 1 --prompt '2 3 4' --tokens 20 --temperature 0");
  EXPECT_NE(both.find("== prompt 1\n" + one + "== prompt 2\n" + two), std::string::npos) << both;
}

TEST_F(GenerateCommand, RefusesWhatCannotBe) {
  ExpectRefused(64, "--prompt a", "its tokenizer is not known: give --tokenizer, or --ids");
  ExpectRefused(64, "--ids", "expected a prompt");
  ExpectRefused(64, "--ids --prompt '1 b'", "--ids: expected token ids with spaces between, found \"b\"");
  ExpectRefused(64, "--ids --prompt '1 256'",
                "prompt 1: expected ids in [0,256), of the model's vocabulary, found 256");
  ExpectRefused(64, "--ids --prompt 1 --top-p 2", "--top-p");
  ExpectRefused(74, "--tokenizer byte --file nowhere", "--file nowhere: expected a file with text");
  ExpectRefused(78, "--ids --prompt 1 model.hidden=32", "model.hidden = 32: the checkpoint's model has 16");
  Expect(64, 2, fmt::format("generate '{}' --ids --prompt 1", folder_ / "runs/run"), {"leave mpirun away"});
}

}  // namespace
}  // namespace longspan

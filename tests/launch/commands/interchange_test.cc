// `longspan export` and `import`: there and back with the same bits, and a run that begins with imported weights.
#include <filesystem>

#include "launch/checkpoint/folder.h"
#include "launch/checkpoint/reader.h"
#include "tests/launch/train/tiny_run.h"

namespace longspan {
namespace {

class Interchange : public TinyRun {
 protected:
  std::string Path(const std::string& name) { return "'" + (folder_ / name) + "' "; }
  // Every weight of the newest checkpoint of a run.
  std::map<std::string, std::vector<float>> WeightsOf(const std::string& run) {
    CheckpointReader reader(NewestCheckpoint(folder_ / run));
    std::map<std::string, std::vector<float>> weights;
    for (const auto& [name, entry] : reader.manifest().tensors) {
      if (!name.starts_with("weight.")) continue;
      weights[name].resize(Shape(entry.shape).count());
      reader.Read(name, 0, HostView(weights[name].data(), Shape(entry.shape)));
    }
    return weights;
  }
  // The text after `before` on its line.
  std::string After(const std::string& before) {
    const size_t at = said_.rfind(before);
    return at == std::string::npos ? "none"
                                   : said_.substr(at + before.size(), said_.find('\n', at) - at - before.size());
  }
};

TEST_F(Interchange, ThereAndBack) {
  WriteTokens("held_out", 400, 11);
  const std::string data = fmt::format("data.validation='{}' ", folder_ / "held_out");
  const std::string model = "model.qk_norm=true model.tied_head=false model.layers=2 model.attention=NSA,FULL ";
  Expect(0, 1, Arguments(data + model), {"done: 3 steps"});
  Expect(0, 1, "export " + Path("runs/run") + Path("there") + "--shard-size 10KB --tokenizer byte", {"written "});
  Expect(0, 1, "import " + Path("there") + Path("back"), {"written ", "longspan"});
  EXPECT_EQ(WeightsOf("back"), WeightsOf("runs/run"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "there/model.safetensors")) << "in shards";
  const auto index = nlohmann::json::parse(ReadFile(folder_ / "there/model.safetensors.index.json"));
  EXPECT_EQ(index["weight_map"].size(), WeightsOf("back").size());
  for (const char* file : {"config.json", "modeling_longspan.py", "tokenizer.json", "tokenizer_config.json"}) {
    EXPECT_TRUE(std::filesystem::exists(folder_ / ("there/" + std::string(file)))) << file;
  }
  EXPECT_EQ(nlohmann::json::parse(ReadFile(folder_ / "there/tokenizer.json"))["model"]["vocab"].size(), 256);
  EXPECT_EQ(nlohmann::json::parse(ReadFile(folder_ / "there/tokenizer_config.json"))["clean_up_tokenization_spaces"],
            false);

  // The loss, a text (the tokenizer came along) and an export of what came back are those of the run.
  const std::string keys = fmt::format("data.format=NANOGPT data.train='{}' {}", folder_ / "tokens", data);
  Expect(0, 1, "eval " + Path("runs/run"), {"held-out loss "});
  const std::string loss = After("held-out loss ");
  Expect(0, 1, "eval " + Path("back") + keys, {"held-out loss " + loss});
  Expect(0, 1, "generate " + Path("runs/run") + "--tokenizer byte --prompt abc --tokens 9 --temperature 0", {"abc"});
  const std::string text = said_.substr(0, said_.find("9 tokens"));
  Expect(0, 1, "generate " + Path("back") + "--prompt abc --tokens 9 --temperature 0", {text});
  Expect(0, 1, "export " + Path("back") + Path("again") + "--dtype BF16", {"written "});
  Expect(0, 1, "import " + Path("again") + Path("rounded"), {"written "});
  EXPECT_NE(WeightsOf("rounded"), WeightsOf("back"));

  // A run on two ranks begins with them: at a learning rate of nearly 0 it stays there.
  Expect(0, 2,
         fmt::format("train --config {} output='{}' name=on {} runtime.device=CPU train.steps=1 "
                     "optimizer.warmup_steps=0 optimizer.schedule=CONSTANT "
                     "optimizer.learning_rate=1e-30 train.eval_sequences=8",
                     Path("back/config.textproto"), folder_ / "runs", keys),
         {"  weights    of ", "held-out loss " + loss.substr(0, 5)});
}

// A model of FULL attention as another program's: it comes back with the same bits, or as NSA that begins where it was.
TEST_F(Interchange, Dense) {
  WriteTokens("held_out", 400, 11);
  const std::string data =
      fmt::format("data.train='{}' data.validation='{}' ", folder_ / "tokens", folder_ / "held_out");
  for (const bool norms : {false, true}) {
    const std::string name = norms ? "qwen3" : "llama";
    Expect(0, 1, Arguments(fmt::format("name={} model.attention=FULL model.qk_norm={} {}", name, norms, data)),
           {"done: 3 steps"});
    Expect(0, 1, "export " + Path("runs/" + name) + Path(name) + "--dense --tokenizer byte", {"written "});
    const auto config = nlohmann::json::parse(ReadFile(folder_ / (name + "/config.json")));
    EXPECT_EQ(config["model_type"], name);
    EXPECT_FALSE(config.contains("auto_map"));
    EXPECT_FALSE(std::filesystem::exists(folder_ / (name + "/modeling_longspan.py")));
    Expect(0, 1, "import " + Path(name) + Path(name + "-full") + "--attention FULL", {"written ", name});
    EXPECT_EQ(WeightsOf(name + "-full"), WeightsOf("runs/" + name));
    Expect(
        0, 1,
        "import " + Path(name) + Path(name + "-nsa") + "model.nsa.block=8 model.nsa.stride=4 model.nsa.select_block=8",
        {"written ", name});
    Expect(0, 1, "eval " + Path("runs/" + name), {"held-out loss "});
    const std::string loss = After("held-out loss ");
    Expect(0, 1, "eval " + Path(name + "-nsa") + data + "data.format=NANOGPT data.sequence_length=64",
           {"held-out loss " + loss.substr(0, 4)});
  }
  Expect(0, 1, Arguments(data + "name=nsa model.attention=NSA,FULL model.layers=2"), {"done: 3 steps"});
  Expect(64, 1, "export " + Path("runs/nsa") + Path("no") + "--dense",
         {"model.attention = FULL in every layer, found NSA"});
  Expect(0, 1, Arguments(data + "name=wide model.attention=FULL model.value_width=4"), {"done: 3 steps"});
  Expect(64, 1, "export " + Path("runs/wide") + Path("no") + "--dense",
         {"model.value_width = model.key_width = 8, found 4"});
}

TEST_F(Interchange, Refusals) {
  Expect(0, 1, Arguments("data.validation_fraction=0"), {"done: 3 steps"});
  Expect(64, 1, "export " + Path("runs/run") + Path("runs"), {"expected a new or empty folder"});
  Expect(0, 1, "export " + Path("runs/run") + Path("there"), {"written "});
  Expect(74, 1, "generate " + Path("there") + "--ids --prompt 1", {"`longspan import` makes one of a model"});
  Expect(64, 1, "import " + Path("there") + Path("runs"), {"expected a new or empty folder"});
  Expect(78, 1, "import " + Path("there") + Path("back") + "model.hidden=32", {"only what is not model. may be other"});
  Expect(74, 1, "import " + Path("nowhere") + Path("back"), {"nowhere/config.json"});
  Expect(64, 1, "import " + Path("there") + Path("back") + "--attention SPARSE", {"--attention: expected NSA or FULL"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "back"));
  Expect(65, 1,
         Arguments(fmt::format("data.validation_fraction=0 name=x model.hidden=32 train.initial_weights={}",
                               Path("runs/run"))),
         {"weight.embedding.weight: expected the shape [256,32], found [256,16]"});
  const std::string config = ReadFile(folder_ / "there/config.json");
  for (const auto& [key, value, told] : std::initializer_list<std::tuple<const char*, int64_t, const char*>>{
           {"hidden_size", int64_t{1} << 40, "there/config.json: hidden = 1099511627776: must be 1 to 134217728"},
           {"num_attention_heads", 1 << 28, "there/config.json: heads = 268435456 and key_width = "}}) {
    auto hostile = nlohmann::json::parse(config);
    hostile[key] = value;
    WriteFile(folder_ / "there/config.json", hostile.dump());
    Expect(65, 1, "import " + Path("there") + Path("back"), {told});
  }
  WriteFile(folder_ / "there/config.json", config);
  std::filesystem::resize_file(folder_ / "there/model.safetensors", 1000);
  Expect(65, 1, "import " + Path("there") + Path("back"), {"model.safetensors"});
}

}  // namespace
}  // namespace longspan

// Loading a configuration: defaults, sources, overrides, round trip, and what wrong ones are told.
#include "launch/config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "launch/config/keys.h"
#include "runtime/error.h"

namespace longspan {
namespace {

using Lines = std::vector<std::string>;

// A configuration without problems, so that each test shows only its own.
constexpr const char* kGood = "data { format: FIBONACCI }\n";

LoadedConfig Parse(const std::string& text, const Lines& overrides = {}, int64_t world = 0) {
  return ParseConfig(text, "run.textproto", overrides, world);
}

std::string Text(const LoadedConfig& loaded) { return fmt::format("{}", fmt::join(loaded.problems, "\n")); }

// The one problem of kGood with these overrides.
std::string OnlyProblem(const Lines& overrides, int64_t world = 0) {
  const LoadedConfig parsed = Parse(kGood, overrides, world);
  return parsed.problems.size() == 1 ? parsed.problems[0] : "not one problem but: " + Text(parsed);
}

void ExpectHas(const std::string& text, const Lines& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << part << "\nis not in\n" << text;
}

TEST(Config, EmptyTextIsTheDefaultConfig) {
  const LoadedConfig loaded = Parse("");
  const std::string expected = SourceTable({RunConfig{}, loaded.sources, {}});
  EXPECT_EQ(SourceTable(loaded), expected);  // field by field, readable when it fails
  EXPECT_TRUE(loaded.config == RunConfig{});
  for (const auto& [key, source] : loaded.sources) EXPECT_EQ(source, "default") << key;
}

TEST(Config, EnumNamesMeanTheSameInBothWorlds) {
  const std::vector<std::pair<std::string, std::function<bool(const RunConfig&)>>> cases = {
      {"model.attention=NSA", [](auto& c) { return c.model.attention[0] == AttentionKind::kNsa; }},
      {"model.attention=FULL", [](auto& c) { return c.model.attention[0] == AttentionKind::kFull; }},
      {"model.attention=WINDOW", [](auto& c) { return c.model.attention[0] == AttentionKind::kWindow; }},
      {"model.nsa.phi=MLP", [](auto& c) { return c.model.nsa.phi == Phi::kMlp; }},
      {"model.nsa.phi=LINEAR", [](auto& c) { return c.model.nsa.phi == Phi::kLinear; }},
      {"model.nsa.phi=MEAN", [](auto& c) { return c.model.nsa.phi == Phi::kMean; }},
      {"model.nsa.compress_rope=AFTER", [](auto& c) { return c.model.nsa.compress_rope == CompressRope::kAfter; }},
      {"model.nsa.compress_rope=BEFORE", [](auto& c) { return c.model.nsa.compress_rope == CompressRope::kBefore; }},
      {"model.nsa.kv_branches=SEPARATE", [](auto& c) { return c.model.nsa.kv_branches == KvBranches::kSeparate; }},
      {"model.nsa.kv_branches=SHARED", [](auto& c) { return c.model.nsa.kv_branches == KvBranches::kShared; }},
      {"model.rope.scaling=NONE", [](auto& c) { return c.model.rope.scaling == RopeScaling::kNone; }},
      {"model.rope.scaling=YARN", [](auto& c) { return c.model.rope.scaling == RopeScaling::kYarn; }},
      {"parallel.layout=CONTIGUOUS", [](auto& c) { return c.parallel.layout == LayoutKind::kContiguous; }},
      {"parallel.layout=HEAD_TAIL", [](auto& c) { return c.parallel.layout == LayoutKind::kHeadTail; }},
      {"parallel.selected_exchange=GATHER",
       [](auto& c) { return c.parallel.selected_exchange == SelectedExchange::kGather; }},
      {"parallel.selected_exchange=FETCH",
       [](auto& c) { return c.parallel.selected_exchange == SelectedExchange::kFetch; }},
      {"parallel.selected_exchange=AUTO",
       [](auto& c) { return c.parallel.selected_exchange == SelectedExchange::kAuto; }},
      {"parallel.transport=AUTO", [](auto& c) { return c.parallel.transport == Transport::kAuto; }},
      {"parallel.transport=NCCL", [](auto& c) { return c.parallel.transport == Transport::kNccl; }},
      {"parallel.transport=STAGED", [](auto& c) { return c.parallel.transport == Transport::kStaged; }},
      {"parallel.transport=PEER", [](auto& c) { return c.parallel.transport == Transport::kPeer; }},
      {"runtime.device=AUTO", [](auto& c) { return c.runtime.device == RuntimeDevice::kAuto; }},
      {"runtime.device=CPU", [](auto& c) { return c.runtime.device == RuntimeDevice::kCpu; }},
      {"runtime.device=GPU", [](auto& c) { return c.runtime.device == RuntimeDevice::kGpu; }},
      {"runtime.dtype=AUTO", [](auto& c) { return c.runtime.dtype == RuntimeType::kAuto; }},
      {"runtime.dtype=F32", [](auto& c) { return c.runtime.dtype == RuntimeType::kF32; }},
      {"runtime.dtype=BF16", [](auto& c) { return c.runtime.dtype == RuntimeType::kBf16; }},
      {"runtime.graphs=AUTO", [](auto& c) { return c.runtime.graphs == Graphs::kAuto; }},
      {"runtime.graphs=OFF", [](auto& c) { return c.runtime.graphs == Graphs::kOff; }},
      {"runtime.graphs=ON", [](auto& c) { return c.runtime.graphs == Graphs::kOn; }},
      {"train.recompute=NONE", [](auto& c) { return c.train.keep.recompute == Recompute::kNone; }},
      {"train.recompute=SELECTIVE", [](auto& c) { return c.train.keep.recompute == Recompute::kSelective; }},
      {"train.recompute=FULL", [](auto& c) { return c.train.keep.recompute == Recompute::kFull; }},
      {"data.format=MEGATRON", [](auto& c) { return c.data.format == DataFormat::kMegatron; }},
      {"data.format=LLMC", [](auto& c) { return c.data.format == DataFormat::kLlmc; }},
      {"data.format=NANOGPT", [](auto& c) { return c.data.format == DataFormat::kNanogpt; }},
      {"data.format=RETRIEVAL", [](auto& c) { return c.data.format == DataFormat::kRetrieval; }},
      {"data.format=FIBONACCI", [](auto& c) { return c.data.format == DataFormat::kFibonacci; }},
      {"data.packing=SEQUENTIAL", [](auto& c) { return c.data.packing == PackingKind::kSequential; }},
      {"data.packing=BEST_FIT", [](auto& c) { return c.data.packing == PackingKind::kBestFit; }},
      {"optimizer.schedule=CONSTANT", [](auto& c) { return c.optimizer.schedule == ScheduleKind::kConstant; }},
      {"optimizer.schedule=LINEAR", [](auto& c) { return c.optimizer.schedule == ScheduleKind::kLinear; }},
      {"optimizer.schedule=COSINE", [](auto& c) { return c.optimizer.schedule == ScheduleKind::kCosine; }},
      {"optimizer.schedule=WARMUP_STABLE_DECAY",
       [](auto& c) { return c.optimizer.schedule == ScheduleKind::kWarmupStableDecay; }},
  };
  for (const auto& [override_text, holds] : cases) {
    EXPECT_TRUE(holds(Parse("", {"data.train=x", override_text}).config)) << override_text;
  }
}

TEST(Config, SourcesNameFileLineAndCommandLine) {
  const LoadedConfig parsed =
      Parse("name: 'a'  # comment\ndata {\n  format: FIBONACCI\n}\nmodel { nsa { window: 64 } }\n",
            {"model.layers=2", "model.layers=3"});
  EXPECT_EQ(Text(parsed), "");
  EXPECT_EQ(parsed.config.model.layers, 3);  // the last override wins
  EXPECT_EQ(parsed.sources.at("name"), "run.textproto:1");
  EXPECT_EQ(parsed.sources.at("data.format"), "run.textproto:3");
  EXPECT_EQ(parsed.sources.at("model.nsa.window"), "run.textproto:5");
  EXPECT_EQ(parsed.sources.at("model.layers"), "command line");
  ExpectHas(SourceTable(parsed), {"model.layers = 3", "# command line", "model.nsa.window = 64", "# run.textproto:5",
                                  "optimizer.beta2 = 0.95", "# default", "name = \"a\""});
}

TEST(Config, OverridesOfEveryType) {
  const RunConfig config =
      Parse(kGood, {"name=my run", "model.attention=NSA,FULL", "model.tied_head=false", "optimizer.learning_rate=1e-4",
                    "data.seed=18446744073709551615", "data.train=a=b", "data.validation="})
          .config;
  EXPECT_EQ(config.name, "my run");
  EXPECT_EQ(config.model.attention, (std::vector<AttentionKind>{AttentionKind::kNsa, AttentionKind::kFull}));
  EXPECT_FALSE(config.model.tied_head);
  EXPECT_EQ(config.optimizer.learning_rate, 1e-4);
  EXPECT_EQ(config.data.seed, 18446744073709551615u);
  EXPECT_EQ(config.data.train, "a=b");
  EXPECT_EQ(config.data.validation, "");
}

TEST(Config, AByteOrderMarkIsNoPartOfTheText) {
  EXPECT_EQ(Parse("\xEF\xBB\xBF"
                  "model { layers: 7 }")
                .config.model.layers,
            7);
}

TEST(Config, TextprotoForms) {
  const LoadedConfig parsed = Parse(
      "name: 'two ' \"parts\";\nmodel: { attention: [NSA, WINDOW], attention: FULL nsa { window: 0x40 } }\n"
      "optimizer { learning_rate: .5 clip_norm: 2. weight_decay: 1e-2f }\ndata { format: FIBONACCI train: \"a\\\"b\" "
      "}");
  EXPECT_EQ(Text(parsed), "");
  const RunConfig& config = parsed.config;
  EXPECT_EQ(config.name, "two parts");
  EXPECT_EQ(config.model.attention.size(), 3u);
  EXPECT_EQ(config.model.nsa.window, 64);
  EXPECT_EQ(config.optimizer.learning_rate, 0.5);
  EXPECT_EQ(config.optimizer.clip_norm, 2.0);
  EXPECT_EQ(config.optimizer.weight_decay, 0.01);
  EXPECT_EQ(config.data.train, "a\"b");
}

TEST(Config, RoundTripKeepsEveryValue) {
  RunConfig config;
  int64_t next = 3;
  VisitKeys(config, [&](const char*, auto& value) {  // a value of its own in every key
    using T = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_same_v<T, bool>) {
      value = !value;
    } else if constexpr (std::is_same_v<T, std::string>) {
      value = fmt::format("a \"quoted\"\n#{}", next++);
    } else if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(1);
    } else if constexpr (std::is_arithmetic_v<T>) {
      value = static_cast<T>(next++) / (std::is_floating_point_v<T> ? 7 : 1);
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      value = {fmt::format("1 a \"quoted\" path, {}", next++), "0.5 b"};
    } else {
      value = {AttentionKind::kWindow, AttentionKind::kNsa};
    }
  });
  const std::string text = ConfigText(config);
  const LoadedConfig again = Parse(text);
  EXPECT_TRUE(again.config == config) << text << "\n" << SourceTable(again);
  for (const auto& [key, source] : again.sources) EXPECT_NE(source, "default") << key << " was not written";
}

// What --print-config prints is a file that says the same, and prints as itself but for the sources.
TEST(Config, APrintedConfigurationIsAConfiguration) {
  const auto values = [](const LoadedConfig& loaded) {
    std::string all;
    std::istringstream lines(SourceTable(loaded));
    for (std::string line; std::getline(lines, line);) all += line.substr(0, line.rfind("  # ")) + "\n";
    return all;
  };
  for (const Lines& overrides : std::vector<Lines>{
           {},
           {"data.format=MEGATRON", "data.blend=1 a b,2.5 c validation=d"},
           {"name=a \"quoted\" # name", "model.attention=NSA,FULL,WINDOW", "optimizer.eps=1e-30", "data.train=C:\\x",
            "optimizer.learning_rate=0.1234567890123456", "data.seed=18446744073709551615", "model.tied_head=false"}}) {
    const LoadedConfig first = Parse(kGood, overrides), second = Parse(SourceTable(first));
    EXPECT_EQ(second.problems, first.problems);
    EXPECT_TRUE(second.config == first.config) << SourceTable(first) << SourceTable(second);
    EXPECT_EQ(values(second), values(first));
    EXPECT_EQ(SourceTable(Parse(SourceTable(second))), SourceTable(second));
  }
  ExpectHas(Text(Parse("data.format = FIBONACCI\nmodel.layerz = 3\nmodel.nsa.window = x\nmodel. = 3")),
            {"run.textproto:2: model.layerz = 3", "run.textproto:3: model.nsa.window = x: expected a whole number",
             "run.textproto:4: expected a name after model."});
  EXPECT_EQ(Parse("data.format = FIBONACCI model.nsa { window = 3 }").config.model.nsa.window, 3);
}

TEST(Config, ListsOfTexts) {
  const LoadedConfig file = Parse("data { blend: '0.7 data/code', blend: '0.3 my books, old validation=b' }");
  EXPECT_EQ(file.config.data.blend, (Lines{"0.7 data/code", "0.3 my books, old validation=b"}));
  EXPECT_EQ(file.sources.at("data.blend"), "run.textproto:1");
  const auto given = [](const std::string& text) {
    return Parse("data { blend: '1 x' }", {"data.blend=" + text}).config.data.blend;
  };
  EXPECT_EQ(given("0.7 data/code,0.3 data/books"), (Lines{"0.7 data/code", "0.3 data/books"}));
  EXPECT_EQ(given("1 [a] b"), Lines{"1 [a] b"});
  EXPECT_EQ(given(""), Lines{});
}

TEST(Config, NumbersAreDecimal) {
  const RunConfig config = Parse(kGood, {"train.steps=010", "optimizer.warmup_steps=009", "optimizer.clip_norm=010.5",
                                         "model.nsa.init=00", "train.seed=0007", "model.nsa.window=0x40"})
                               .config;
  EXPECT_EQ(config.train.steps, 10);
  EXPECT_EQ(config.optimizer.warmup_steps, 9);
  EXPECT_EQ(config.optimizer.clip_norm, 10.5);
  EXPECT_EQ(config.model.nsa.init, 0);
  EXPECT_EQ(config.train.seed, 7u);
  EXPECT_EQ(config.model.nsa.window, 64);
  const LoadedConfig file =
      Parse("data { format: FIBONACCI } train { steps: 0100 seed: 08 } optimizer { clip_norm: 010 }");
  EXPECT_EQ(Text(file), "");
  EXPECT_EQ(file.config.train.steps, 100);
  EXPECT_EQ(file.config.train.seed, 8u);
  EXPECT_EQ(file.config.optimizer.clip_norm, 10);
  ExpectHas(OnlyProblem({"train.steps=-010"}), {"train.steps = -10"});
}

TEST(Config, UnknownKeysNameTheNearest) {
  ExpectHas(OnlyProblem({"model.layerz=4"}), {"command line: model.layerz = 4", "did you mean model.layers?"});
  ExpectHas(OnlyProblem({"model.block=4"}), {"did you mean model.nsa.block?"});
  ExpectHas(OnlyProblem({"learning_rate=4"}), {"did you mean optimizer.learning_rate?"});
  ExpectHas(OnlyProblem({"train.learning_rate=4"}), {"did you mean optimizer.learning_rate?"});
  ExpectHas(OnlyProblem({"modle.nsa.window=4"}), {"did you mean model.nsa.window?"});
  ExpectHas(OnlyProblem({"model.layers.x=4"}), {"did you mean model.layers?"});
  ExpectHas(OnlyProblem({"model.nsa=4"}), {"is a group and not a value; give model.nsa.KEY a value"});
  ExpectHas(OnlyProblem({"=4"}), {"no such key"});
  ExpectHas(OnlyProblem({"train.steps"}), {"command line: train.steps: expected key=value"});
  ExpectHas(Text(Parse("data { format: FIBONACCI }\nmodel {\n  hiden: 4\n}")),
            {"run.textproto:3: model.hiden = 4", "did you mean model.hidden?"});
}

TEST(Config, UnknownGroupIsReportedOnce) {
  const LoadedConfig parsed = Parse("data { format: FIBONACCI }\nmodle {\n layers: 3 nsa { window: 4 }\n}\nnsa { }\n");
  ASSERT_EQ(parsed.problems.size(), 2u) << Text(parsed);
  ExpectHas(parsed.problems[0], {"run.textproto:2: modle", "did you mean model?"});
  ExpectHas(parsed.problems[1], {"run.textproto:5: nsa", "did you mean model.nsa?"});
}

TEST(Config, WrongTypesSayWhatWasExpected) {
  ExpectHas(OnlyProblem({"model.layers=four"}), {"model.layers = four", "expected a whole number"});
  ExpectHas(OnlyProblem({"model.layers=1.5"}), {"expected a whole number"});
  ExpectHas(OnlyProblem({"model.layers=99999999999999999999"}), {"expected a whole number"});
  ExpectHas(OnlyProblem({"model.layers="}), {"expected a whole number"});
  ExpectHas(OnlyProblem({"train.seed=-1"}), {"expected a whole number, 0 or more"});
  ExpectHas(OnlyProblem({"optimizer.beta1=high"}), {"expected a number"});
  ExpectHas(OnlyProblem({"model.tied_head=maybe"}), {"expected true or false"});
  ExpectHas(OnlyProblem({"parallel.layout=HEADTAIL"}),
            {"expected one of CONTIGUOUS, HEAD_TAIL", "did you mean HEAD_TAIL?"});
  ExpectHas(OnlyProblem({"model.attention=NSA,FUL"}), {"expected one of NSA, FULL, WINDOW", "did you mean FULL?"});
  ExpectHas(OnlyProblem({"model.attention="}), {"expected one of NSA, FULL, WINDOW"});
  ExpectHas(Text(Parse("data { format: FIBONACCI }\nmodel { attention: [] }")),
            {"run.textproto:2: model.attention", "expected one of NSA, FULL, WINDOW"});
  ExpectHas(Text(Parse("data { format: FIBONACCI }\nname: 3")),
            {"run.textproto:2: name = 3", "expected a string in quotes"});
  ExpectHas(Text(Parse("data { format: FIBONACCI }\nmodel: 3")),
            {"run.textproto:2: model = 3", "is a group and not a value"});
  ExpectHas(Text(Parse("data { format: FIBONACCI }\nname { }")),
            {"run.textproto:2: name", "is a value and not a group"});
  ExpectHas(Text(Parse("data { format: FIBONACCI }\nname: 'a'\nname: 'b'")),
            {"run.textproto:3", "given twice", "run.textproto:2"});
}

TEST(Config, SyntaxErrorsNameTheLine) {
  ExpectHas(Text(Parse("model {\n layers: 4\n")),
            {"run.textproto:3", "the '}' of model (line 1)", "the end of the file"});
  ExpectHas(Text(Parse("name 'x'")), {"run.textproto:1", "expected ':', '=' or '{' after name", "''x''"});
  ExpectHas(Text(Parse("\nname: }")), {"run.textproto:2", "expected a value for name"});
  ExpectHas(Text(Parse("name: 'x")), {"run.textproto:1"});
  ExpectHas(Text(Parse("}")), {"run.textproto:1", "expected a key, found '}'"});
  ExpectHas(Text(Parse("model { attention: [NSA FULL] }")), {"expected ',' or ']' in the list model.attention"});
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "model {";
  ExpectHas(Text(Parse(deep)), {"run.textproto:1", "expected no group in so many others"});
  EXPECT_EQ(Parse("name 'x'").problems.size(), 1u);  // no rules on a half-read file
}

TEST(Config, AllProblemsAtOnce) {
  const LoadedConfig parsed = Parse("data { format: FIBONACCI }\nmodel {\n hiden: 4\n layers: x\n heads: 7\n}\n",
                                    {"optimizer.beta1=2", "parallel.layout=X"});
  EXPECT_EQ(parsed.problems.size(), 5u) << Text(parsed);
  ExpectHas(Text(parsed),
            {"run.textproto:3: model.hiden", "run.textproto:4: model.layers", "run.textproto:5: model.heads = 7",
             "command line: optimizer.beta1 = 2", "command line: parallel.layout = X"});
  try {
    RefuseProblems(parsed.problems);
    FAIL() << "problems were accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    ExpectHas(error.what(), {"the configuration has 5 problems:\n  "});
  }
}

TEST(Config, AnUnreadKeyIsNotJudgedByItsDefault) {
  // The default of 4 layers would disagree with five kinds; the user wrote another number, though not a good one.
  EXPECT_EQ(Parse(kGood, {"model.attention=NSA,NSA,NSA,NSA,NSA", "model.layers=x"}).problems.size(), 1u);
}

TEST(Config, FilesThatCannotBeRead) {
  for (const std::string& path : {std::string("no/such/file"), std::filesystem::temp_directory_path().string()}) {
    try {
      ReadConfig(path, {});
      FAIL() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kIo);
      ExpectHas(error.what(), {path});
    }
  }
}

TEST(Config, EveryPresetIsValid) {
  int presets = 0;
  for (const auto& file : std::filesystem::directory_iterator(LONGSPAN_CONFIGS)) {
    if (file.path().extension() != ".textproto") continue;
    ++presets;
    const LoadedConfig loaded = ReadConfig(file.path(), {});
    EXPECT_EQ(Text(loaded), "") << file.path();
    EXPECT_EQ(loaded.config.name, file.path().stem());
    std::string first;
    std::getline(std::ifstream(file.path()), first);
    EXPECT_TRUE(first.starts_with("# ")) << file.path() << " has no head comment";
  }
  EXPECT_GE(presets, 5);
  const auto problems = [](const std::string& name, const Lines& overrides, int64_t world) {
    return Text(ReadConfig(LONGSPAN_CONFIGS "/" + name + ".textproto", overrides, world));
  };
  EXPECT_EQ(problems("quickstart", {}, 4), "");
  EXPECT_EQ(problems("nsa_1b", {"parallel.cp=8"}, 8), "");
  EXPECT_EQ(problems("paper_27b_attention",
                     {"parallel.cp=8", "data.sequence_length=32768", "model.rope.scaling=YARN", "model.rope.factor=4",
                      "model.rope.original_max_position=8192"},
                     16),
            "");
}

}  // namespace
}  // namespace longspan

// A manifest comes back as it was written, and says what is wrong with one that is not.
#include "launch/checkpoint/manifest.h"

#include <random>

#include "runtime/files/checksum.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

Manifest Example() {
  Manifest m;
  m.program = "longspan 1";
  m.libraries = "MPI 4";
  m.time = "2026-01-31T12:00:00Z";
  m.ranks = 6;
  m.dp = 3;
  m.cp = 2;
  m.device = "cpu";
  m.dtype = "F32";
  m.state = {.step = 17,
             .sequences = 34,
             .seconds = 0.1 + 0.2,
             .graphs = true,
             .numbers = {{"bad_steps", {3}}, {"loss", {1.0 / 3, 1e300, -0.0}}}};
  m.data = {{"data.train", "u16, 00ff", "/data/\"x\".bin"}};
  m.config = "name: \"a\"\n";
  m.files = {{"a.safetensors", {100, 0xfedcba9876543210}}, {"b.safetensors", {1, 2}}};
  m.tensors = {{"weight.x", {DType::kF32, {2, 3}, {{"a.safetensors", 0, 4}, {"b.safetensors", 4, 6}}}},
               {"weight.none", {DType::kBf16, {0}, {}}}};
  return m;
}

// The text with its sums made again, so that only the rule behind it can refuse it.
std::string With(const Manifest& m) { return m.Text(); }

TEST(Manifest, ComesBackAsItWas) {
  const Manifest m = Example();
  EXPECT_EQ(Manifest::Parse(m.Text(), "m"), m);
  EXPECT_EQ(m.bytes(), 101);
}

TEST(Manifest, NamesWhatIsWrong) {
  const auto refuse = [](const Manifest& m, std::initializer_list<std::string> parts) {
    ExpectError(ExitCode::kData, parts, [&] { Manifest::Parse(With(m), "m.json"); });
  };
  Manifest m = Example();
  m.tensors["weight.x"].parts.pop_back();
  refuse(m, {"m.json", "weight.x.parts", "all 6 elements"});
  m = Example();
  m.tensors["weight.x"].parts[1].begin = 3;
  refuse(m, {"weight.x.parts[1]", "elements from 4 on, of 6"});
  m = Example();
  m.tensors["weight.x"].parts[1].end = 7;
  refuse(m, {"weight.x.parts[1]"});
  m = Example();
  m.tensors["weight.x"].shape = {int64_t{1} << 62, 4};
  refuse(m, {"weight.x.shape[1]", "fits in memory"});
  m = Example();
  m.tensors["weight.x"].shape = {1, 1, 1, 2, 3};
  refuse(m, {"four dimensions"});
  m = Example();
  m.files.erase("b.safetensors");
  refuse(m, {"parts[1].file", "a name of \"files\""});
  m = Example();
  m.files["../x"] = {};
  refuse(m, {"files.../x", "a file of the folder"});
  m = Example();
  m.state.step = -1;
  refuse(m, {"state.step", "a whole number from 0", "-1"});
  ExpectError(ExitCode::kData, {"m.json", "in JSON"}, [] { Manifest::Parse("", "m.json"); });
  ExpectError(ExitCode::kData, {"a value of \"manifest\""}, [] { Manifest::Parse("{}", "m.json"); });
  ExpectError(ExitCode::kData, {"a value of \"xxh3\""}, [] { Manifest::Parse("{\"manifest\": 3}", "m.json"); });
}

// Any bit: either it is refused, or it changed nothing (a space).
// Not a call for each level.
TEST(Manifest, ManyInOneAnotherAreRefused) {
  const std::string many(1000000, '[');
  for (const std::string& text :
       {many, "{\"manifest\": " + many + std::string(many.size(), ']') + ", \"xxh3\": \"0\"}"}) {
    ExpectError(ExitCode::kData, {"manifest.json", "expected a manifest"},
                [&] { Manifest::Parse(text, "manifest.json"); });
  }
}

TEST(Manifest, AFlippedBitIsSeen) {
  const Manifest m = Example();
  const std::string text = m.Text();
  int refused = 0;
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    try {
      EXPECT_EQ(Manifest::Parse(flipped, "m"), m);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(ExitCode::kData));
      ++refused;
    }
  }
  EXPECT_GT(refused, static_cast<int>(6 * text.size()));
  for (size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_THROW(Manifest::Parse(text.substr(0, size), "m"), Error) << size;
  }
}

}  // namespace
}  // namespace longspan

// Rates of a device: from which case they come, what they say, and what is refused.
#include "launch/plan/rates.h"

#include <gtest/gtest.h>

#include "tests/support/files.h"

namespace longspan {
namespace {

constexpr const char* kBench = R"({"version":"1","device":"a device","dtype":"BF16","runs":3,"cases":[
{"sizes":{"tokens":4096,"heads":64,"groups":4,"key_width":128,"value_width":128},"error":"no memory"},
{"sizes":{"tokens":65536,"heads":64,"groups":4,"key_width":128,"value_width":128},"matmul_tflops":800,"copy_gbps":2000,
 "stages":[{"name":"window","direction":"forward","ms":2,"flops":1e12,"bytes":2e9},
           {"name":"combine","direction":"backward","ms":4,"flops":0,"bytes":8e9},
           {"name":"full","direction":"forward","ms":1,"flops":1e12,"bytes":2e9},
           {"name":"selected","direction":"forward","error":"refused"}]},
{"sizes":{"tokens":8192,"heads":64,"groups":4,"key_width":128,"value_width":128},"matmul_tflops":700,"copy_gbps":1000,
 "stages":[]},
{"sizes":{"tokens":8192,"heads":16,"groups":4,"key_width":64,"value_width":64},"matmul_tflops":600,"copy_gbps":500,
 "stages":[]}]})";

class RatesTest : public testing::Test {
 protected:
  std::string File(const std::string& text) {
    WriteFile(folder_ / "rates.json", text);
    return folder_ / "rates.json";
  }
  static RunConfig Sizes(int64_t tokens, int64_t heads, int64_t groups, int64_t width) {
    RunConfig config;
    config.data.sequence_length = tokens;
    config.model.heads = heads;
    config.model.kv_heads = groups;
    config.model.key_width = config.model.value_width = width;
    return config;
  }
  static void Refuse(const std::string& path, ExitCode code, const std::string& says) {
    ExpectError(code, {says}, [&] { DeviceRates(path, Sizes(1024, 4, 1, 64)); });
  }
  TempFolder folder_;
};

TEST_F(RatesTest, TakesTheNearestCase) {
  const std::string path = File(kBench);
  EXPECT_EQ(DeviceRates(path, Sizes(50000, 64, 4, 128)).matmul_flops(), 800e12);
  EXPECT_EQ(DeviceRates(path, Sizes(4096, 32, 2, 128)).matmul_flops(), 700e12) << "one that was not measured is nearer";
  EXPECT_EQ(DeviceRates(path, Sizes(65536, 16, 4, 64)).matmul_flops(), 600e12) << "widths count before lengths";
  RunConfig cut = Sizes(131072, 64, 4, 128);
  cut.parallel.cp = 16;
  EXPECT_EQ(DeviceRates(path, cut).matmul_flops(), 700e12) << "a rank has 8192 tokens";
}

TEST_F(RatesTest, LongerOfFlopsAndBytes) {
  const DeviceRates rates(File(kBench), Sizes(65536, 64, 4, 128));
  EXPECT_EQ(rates.device(), "a device");
  EXPECT_DOUBLE_EQ(rates.Seconds("attention.window", {1, 0, 1e12, 2e9}), 2e-3);
  EXPECT_DOUBLE_EQ(rates.Seconds("attention.window", {1, 0, 2e12, 2e9}), 4e-3);
  EXPECT_DOUBLE_EQ(rates.Seconds("attention.window", {1, 0, 1e12, 6e9}), 6e-3);
  EXPECT_DOUBLE_EQ(rates.Seconds("attention.combine_backward", {1, 0, 1e15, 8e9}), 4e-3);
  EXPECT_DOUBLE_EQ(rates.Seconds("dense.matmul", {1, 0, 8e14, 1e9}), 1);
  EXPECT_DOUBLE_EQ(rates.Seconds("dense.swiglu", {1, 0, 8e14, 2e12}), 1);
}

TEST_F(RatesTest, DenseLayersHaveTheirOwn) {
  RunConfig config = Sizes(65536, 64, 4, 128);
  config.model.attention = {AttentionKind::kWindow, AttentionKind::kFull};
  EXPECT_DOUBLE_EQ(DeviceRates(File(kBench), config).Seconds("attention.window", {1, 0, 1e12, 2e9}), 1e-3);
}

TEST_F(RatesTest, RefusesOtherFiles) {
  Refuse(folder_ / "none", ExitCode::kIo, "none: cannot open");
  Refuse(File("text"), ExitCode::kData, "rates.json: expected what longspan bench nsa --json writes");
  Refuse(File("[]"), ExitCode::kData, "rates.json: expected what longspan bench nsa --json writes");
  Refuse(File(R"({"device":"d","cases":[{"sizes":{}}]})"), ExitCode::kData, "expected what longspan bench nsa");
  Refuse(File(R"({"device":"d","cases":[]})"), ExitCode::kData, "cases: expected one that was measured, found none");
}

}  // namespace
}  // namespace longspan

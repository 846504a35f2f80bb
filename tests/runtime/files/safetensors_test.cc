#include "runtime/files/safetensors.h"

#include <cstring>
#include <random>

#include "runtime/files/checksum.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

// A file of this header and data, the length in front.
std::string File(const std::string& header, const std::string& data) {
  return Bytes<uint64_t>(header.size()) + header + data;
}

class Safetensors : public testing::Test {
 protected:
  void ExpectBad(const std::string& bytes, std::initializer_list<std::string> parts) {
    SCOPED_TRACE(bytes.substr(std::min<size_t>(8, bytes.size())));
    WriteFile(path_, bytes);
    ExpectError(ExitCode::kData, parts, [&] { SafetensorsFile::Open(path_); });
    ExpectError(ExitCode::kData, {path_}, [&] { SafetensorsFile::Open(path_); });
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "x.safetensors";
};

TEST_F(Safetensors, WhatIsWrittenIsRead) {
  std::vector<float> floats = {1, 2.5, -3, 4, 5, 6};
  std::vector<int32_t> numbers = {7, -8, 9};
  std::vector<double> scalar = {0.125};
  std::vector<uint8_t> bytes = {1, 2, 3, 4, 5};
  std::vector<uint16_t> halves = {0x3f80, 0x4000};
  float none = 0;
  Tensor bf16(halves.data(), DType::kBf16, DeviceKind::kCpu, {1, 2});
  const WrittenFile written = WriteSafetensors(path_,
                                               {{"b", HostView(floats.data(), {2, 3})},
                                                {"bytes", HostView(bytes.data(), {5})},
                                                {"a", HostView(numbers.data(), {3})},
                                                {"scalar", HostView(scalar.data(), {})},
                                                {"half", bf16},
                                                {"empty", HostView(&none, {0, 4})}},
                                               {{"step", "12"}, {"quote", "a \"b\"\n"}});

  const std::string all = ReadFile(path_);
  EXPECT_EQ(written.bytes, std::ssize(all));
  EXPECT_EQ(written.checksum, ChecksumOf(all.data(), std::ssize(all)));
  const SafetensorsFile file = SafetensorsFile::Open(path_);
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b", "bytes", "empty", "half", "scalar"}));
  EXPECT_EQ(file.metadata().at("step"), "12");
  EXPECT_EQ(file.metadata().at("quote"), "a \"b\"\n");
  const Tensor b = file.Get("b");
  EXPECT_EQ(b.shape, (Shape{2, 3}));
  EXPECT_EQ(std::memcmp(b.As<float>(), floats.data(), b.bytes()), 0);
  EXPECT_EQ(std::memcmp(file.Get("a").As<int32_t>(), numbers.data(), 12), 0);
  EXPECT_EQ(file.Get("scalar").shape.rank(), 0);
  EXPECT_EQ(*file.Get("scalar").As<double>(), 0.125);
  EXPECT_EQ(std::memcmp(file.Get("bytes").As<uint8_t>(), bytes.data(), 5), 0);
  EXPECT_EQ(file.Get("half").dtype, DType::kBf16);
  EXPECT_EQ(file.Get("empty").shape, (Shape{0, 4}));
  ExpectError(ExitCode::kData, {path_, "\"c\"", "a, b"}, [&] { file.Get("c"); });

  // The writer's order: widest first, then by name; the header is padded, so that all is aligned.
  const std::string text = ReadFile(path_);
  uint64_t header;
  std::memcpy(&header, text.data(), 8);
  EXPECT_EQ(header % 8, 0u);
  EXPECT_LT(text.find("\"scalar\""), text.find("\"a\""));
  EXPECT_LT(text.find("\"a\""), text.find("\"b\""));
  EXPECT_LT(text.find("\"half\""), text.find("\"bytes\""));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
}

TEST_F(Safetensors, UnalignedDataAndForeignTypes) {
  // 1 byte, then a float at an odd address; a type we do not read; five dimensions.
  WriteFile(path_, File(R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                        R"("f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},)"
                        R"("h":{"dtype":"F16","shape":[1],"data_offsets":[5,7]},)"
                        R"("d":{"dtype":"U8","shape":[1,1,1,1,1],"data_offsets":[7,8]}}   )",
                        "A" + Bytes<float>(1.5f) + "hhd"));
  const SafetensorsFile file = SafetensorsFile::Open(path_);
  EXPECT_EQ(*file.Get("f").As<float>(), 1.5f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.Get("f").data) % 4, 0u);
  ExpectError(ExitCode::kData, {"h", "F16"}, [&] { file.Get("h"); });
  ExpectError(ExitCode::kData, {"d", "dimensions"}, [&] { file.Get("d"); });
}

TEST_F(Safetensors, EmptyHeaderIsLegal) {
  WriteFile(path_, File("{}", ""));
  EXPECT_TRUE(SafetensorsFile::Open(path_).names().empty());
}

TEST_F(Safetensors, BadFilesAreRefusedByName) {
  const std::string f32 = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  ExpectBad("", {"header length"});
  ExpectBad("1234567", {"header length", "7 bytes"});
  ExpectBad(Bytes<uint64_t>(UINT64_MAX) + "{}", {"at most 2 bytes"});
  ExpectBad(Bytes<uint64_t>(3) + "{}", {"at most 2 bytes, found 3"});
  ExpectBad(File("", ""), {"'{'"});
  ExpectBad(File(" {}", ""), {"'{'"});
  ExpectBad(File("[]", ""), {"'{'"});
  ExpectBad(File("{\"a\":", ""), {"not JSON"});
  ExpectBad(File("{\"a\":1e999}", ""), {"not JSON"});
  ExpectBad(File("{\"\xff\":" + f32 + "}", "1234"), {"not JSON"});
  ExpectBad(File("{\"a\":" + f32 + ",\"a\":" + f32 + "}", "1234"), {"\"a\" twice"});
  ExpectBad(File(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234"),
            {"dtype", "twice"});
  ExpectBad(File("{\"a\":" + std::string(100000, '[') + "}", ""), {"nested"});
  ExpectBad(File("{\"a\":[]}", ""), {"a: expected {dtype"});
  ExpectBad(File(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", "1234"), {"dtype", "none"});
  ExpectBad(File(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "1234"), {"dtype", "F33"});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", "1234"), {"\"x\""});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234"), {"\"shape\""});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "1234"), {"\"shape\""});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", "1234"),
            {"\"shape\""});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", "1234"),
            {"too large"});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234"), {"data_offsets"});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234"), {"data_offsets"});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "1234"), {"within 4 bytes"});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234"), {"64 bits"});
  ExpectBad(File(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", "1"), {"4 bits"});
  ExpectBad(File("{\"a\":" + f32 + ",\"b\":" + f32 + "}", "1234"), {"overlap"});
  ExpectBad(File(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678"), {"hole"});
  ExpectBad(File("{\"a\":" + f32 + "}", "12345"), {"end at data byte 4, the file at 5"});
  ExpectBad(File("{}", "1"), {"end at data byte 0"});
  ExpectBad(File("{\"__metadata__\":[]}", ""), {"object of strings"});
  ExpectBad(File("{\"__metadata__\":{\"a\":1}}", ""), {"string for \"a\""});
  ExpectError(ExitCode::kIo, {folder_ / "none"}, [&] { SafetensorsFile::Open(folder_ / "none"); });
  ExpectError(ExitCode::kIo, {"regular file"}, [&] { SafetensorsFile::Open(folder_ / ""); });
}

// Any damage is either refused with an Error or harmless: never a crash, never a view outside the file.
TEST_F(Safetensors, DamagedFilesNeverCrash) {
  const std::string good = File(R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                                R"("b":{"dtype":"I64","shape":[1],"data_offsets":[8,16]},"__metadata__":{"k":"v"}})",
                                "0123456789abcdef");
  std::mt19937 random(1);
  int refused = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string bad = good;
    for (int change = 0; change < 1 + round % 3; ++change) bad[random() % bad.size()] = static_cast<char>(random());
    if (round % 4 == 0) bad.resize(random() % bad.size());
    WriteFile(path_, bad);
    try {
      const SafetensorsFile file = SafetensorsFile::Open(path_);
      for (const std::string& name : file.names()) {
        if (name == "a" || name == "b") {
          EXPECT_LE(file.Get(name).bytes(), 16);
        }
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST_F(Safetensors, AnUnfinishedFileLeavesTheOldOne) {
  float value = 3;
  WriteSafetensors(path_, {{"a", HostView(&value, {1})}});
  EXPECT_THROW(WriteSafetensors(path_, {{"a", HostView(&value, {1})}, {"a", HostView(&value, {1})}}), Error);
  EXPECT_EQ(*SafetensorsFile::Open(path_).Get("a").As<float>(), 3);
  ExpectError(ExitCode::kIo, {"none/x"}, [&] { WriteSafetensors(folder_ / "none/x", {}); });
}

}  // namespace
}  // namespace longspan

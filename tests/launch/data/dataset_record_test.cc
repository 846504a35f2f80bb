// DatasetRecord: there and back, what is none, and what is refused.
#include "launch/data/dataset_record.h"

#include <array>

#include "launch/data/megatron.h"
#include "launch/data/sequence_source.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

class DatasetRecordTest : public testing::Test {
 protected:
  static void MakeDataset(const std::string& prefix) {
    MegatronWriter writer(prefix, 256);
    writer.Append(std::vector<int32_t>{1, 2, 3});
    writer.EndDocument();
    EXPECT_EQ(writer.largest_id(), 3);
    CommitAll(writer.Complete());
  }
  std::optional<DatasetRecord> Read(const std::string& text) {
    WriteFile(prefix_ + ".json", text);
    return ReadDatasetRecord(prefix_);
  }
  TempFolder folder_;
  const std::string prefix_ = folder_ / "set";
};

TEST_F(DatasetRecordTest, ThereAndBack) {
  const DatasetRecord record = {
      .tokenizer = "sentencepiece", .tokenizer_hash = "00ab", .tokens = 7, .documents = 2, .largest_id = 5};
  OutputFile file(prefix_ + ".json");
  WriteDatasetRecord(record, &file);
  file.Commit();
  EXPECT_EQ(ReadDatasetRecord(prefix_), record);
  EXPECT_EQ(ReadDatasetRecord(prefix_ + ".bin"), record);
}

TEST_F(DatasetRecordTest, OtherFilesAreNone) {
  EXPECT_FALSE(ReadDatasetRecord(prefix_));
  for (const char* text :
       {"", "a text", "[1, 2]", "{\"tokens\": 3}", "{\"text\": \"a document\"}\n{\"text\": \"b\"}\n"}) {
    EXPECT_FALSE(Read(text)) << text;
  }
  EXPECT_FALSE(Read("{\"tokenizer_hash\": \"" + std::string(5000, 'a') + "\"}"));
}

TEST_F(DatasetRecordTest, WrongValuesAreNamed) {
  const std::string good =
      R"({"tokenizer": "byte", "tokenizer_hash": "", "tokens": 3, "documents": 1, "largest_id": 99})";
  EXPECT_TRUE(Read(good));
  for (const auto& [from, to, message] : std::initializer_list<std::array<const char*, 3>>{
           {"99", "-1", "largest_id: expected a whole number, found -1"},
           {"99", "1.5", "largest_id: expected a whole number, found 1.5"},
           {"99", "18446744073709551615", "largest_id: expected a whole number"},
           {"\"byte\"", "8", "tokenizer: expected a string, found 8"},
           {"\"documents\"", "\"document\"", "expected a value of documents, found none"}}) {
    std::string text = good;
    text.replace(text.find(from), std::string(from).size(), to);
    ExpectError(ExitCode::kData, {prefix_ + ".json", message}, [&] { Read(text); });
  }
}

TEST_F(DatasetRecordTest, ARecordOfAnotherDatasetIsRefused) {
  MakeDataset(prefix_);
  const Dataset dataset = OpenDataset(DataFormat::kMegatron, prefix_);
  EXPECT_FALSE(RecordOf(dataset));
  Read(R"({"tokenizer": "byte", "tokenizer_hash": "", "tokens": 3, "documents": 1, "largest_id": 3})");
  EXPECT_EQ(RecordOf(dataset)->largest_id, 3);
  Read(R"({"tokenizer": "byte", "tokenizer_hash": "", "tokens": 4, "documents": 1, "largest_id": 3})");
  ExpectError(ExitCode::kData, {"set.json", "4 tokens", "1 with 3"}, [&] { RecordOf(dataset); });
}

TEST_F(DatasetRecordTest, FilesOfOneDatasetHaveOneTokenizer) {
  const auto add = [&](const std::string& name, const std::string& hash, int64_t largest) {
    MakeDataset(folder_ / name);
    OutputFile file(folder_ / (name + ".json"));
    WriteDatasetRecord({"sentencepiece", hash, 3, 1, largest}, &file);
    file.Commit();
  };
  const auto all = [&] { return RecordOf(OpenDataset(DataFormat::kMegatron, folder_ / "part*")); };
  add("part0", "00ab", 3);
  add("part1", "00ab", 9);
  EXPECT_EQ(all(), (DatasetRecord{"sentencepiece", "00ab", 6, 2, 9}));
  add("part1", "00ac", 9);
  ExpectError(ExitCode::kData, {"part*", "(model 00ab) in", "part0.bin", "(model 00ac) in", "part1.bin"}, all);
  std::filesystem::remove(folder_ / "part1.json");
  EXPECT_FALSE(all());
}

TEST_F(DatasetRecordTest, HeldOutDataOfAnotherTokenizerIsRefused) {
  const std::string other = folder_ / "other";
  DataConfig data;
  data.train = prefix_;
  data.validation = other;
  data.sequence_length = 8;
  const auto record = [](const std::string& path, const std::string& tokenizer, const std::string& hash) {
    OutputFile file(path + ".json");
    WriteDatasetRecord({tokenizer, hash, 3, 1, 3}, &file);
    file.Commit();
  };
  MakeDataset(prefix_);
  MakeDataset(other);
  EXPECT_NE(OpenSources(data, 256, 8).validation, nullptr);
  record(prefix_, "sentencepiece", "0123456789abcdef");
  EXPECT_NE(OpenSources(data, 256, 8).validation, nullptr);  // not known to be another
  record(other, "sentencepiece", "0123456789abcdef");
  EXPECT_NE(OpenSources(data, 256, 8).validation, nullptr);
  record(other, "byte", "");
  ExpectError(
      ExitCode::kConfig,
      {"data.train = " + prefix_, "data.validation = " + other, "sentencepiece (model 0123456789abcdef) and byte"},
      [&] { OpenSources(data, 256, 8); });
  record(other, "sentencepiece", "fedcba9876543210");
  ExpectError(ExitCode::kConfig, {"(model 0123456789abcdef)", "(model fedcba9876543210)"},
              [&] { OpenSources(data, 256, 8); });
}

}  // namespace
}  // namespace longspan

// DatasetRecord: there and back, what is none, and what is refused.
#include "launch/data/dataset_record.h"

#include "launch/data/megatron.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

class DatasetRecordTest : public testing::Test {
 protected:
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
  MegatronWriter writer(prefix_, 256);
  writer.Append(std::vector<int32_t>{1, 2, 3});
  writer.EndDocument();
  EXPECT_EQ(writer.largest_id(), 3);
  CommitAll(writer.Complete());
  const Dataset dataset = OpenDataset(DataFormat::kMegatron, prefix_);
  EXPECT_FALSE(RecordOf(dataset));
  Read(R"({"tokenizer": "byte", "tokenizer_hash": "", "tokens": 3, "documents": 1, "largest_id": 3})");
  EXPECT_EQ(RecordOf(dataset)->largest_id, 3);
  Read(R"({"tokenizer": "byte", "tokenizer_hash": "", "tokens": 4, "documents": 1, "largest_id": 3})");
  ExpectError(ExitCode::kData, {"set.json", "4 tokens", "1 with 3"}, [&] { RecordOf(dataset); });
}

}  // namespace
}  // namespace longspan

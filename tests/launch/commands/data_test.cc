#include "launch/commands/data.h"

#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "launch/data/dataset.h"
#include "launch/data/dataset_builder.h"
#include "launch/data/dataset_record.h"
#include "launch/data/find_files.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

using Paths = std::vector<std::string>;

class DataCommand : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(folder_ / "in/b.h", "int b;\n");
    WriteFile(folder_ / "in/a.cc", "int a();\n");
    WriteFile(folder_ / "in/sub/c.h", "longest file of all\n");
    WriteFile(folder_ / "in/sub/skip/d.h", "d\n");
    WriteFile(folder_ / "in/empty.h", "");
    WriteFile(folder_ / "in/binary.h", std::string("a\0b", 3));
    options_.texts.files.inputs = {folder_ / "in"};
    options_.output = folder_ / "out/set";
  }
  Paths Find() {
    Paths paths;
    for (const FoundFile& file : FindFiles(options_.texts.files).files)
      paths.push_back(file.path.substr((folder_ / "").size()));
    return paths;
  }
  static std::string Text(const Dataset& dataset, int64_t document) {
    std::vector<int32_t> ids(dataset.DocumentLength(document));
    dataset.Read(document, 0, ids);
    return std::string(ids.begin(), ids.end());
  }
  std::string Run() {
    testing::internal::CaptureStdout();
    EXPECT_EQ(RunData(options_), 0);
    return testing::internal::GetCapturedStdout();
  }
  TempFolder folder_;
  DataOptions options_;
};

TEST_F(DataCommand, FilesAreFoundInOneOrder) {
  EXPECT_EQ(Find(), (Paths{"in/a.cc", "in/b.h", "in/binary.h", "in/empty.h", "in/sub/c.h", "in/sub/skip/d.h"}));
  options_.texts.files.include = {"*.h"};
  options_.texts.files.exclude = {"skip", "b*"};
  EXPECT_EQ(Find(), (Paths{"in/empty.h", "in/sub/c.h"}));
  options_.texts.files.exclude = {"*/sub/*"};
  EXPECT_EQ(Find(), (Paths{"in/b.h", "in/binary.h", "in/empty.h"}));
  options_.texts.files.exclude = {"sub/", "b.h/"};  // folders alone
  EXPECT_EQ(Find(), (Paths{"in/b.h", "in/binary.h", "in/empty.h"}));
  options_.texts.files.exclude = {"*/sub/skip//"};
  EXPECT_EQ(Find(), (Paths{"in/b.h", "in/binary.h", "in/empty.h", "in/sub/c.h"}));
  options_.texts.files.exclude = {"*/sub/*"};
  options_.texts.files.inputs.insert(options_.texts.files.inputs.begin(),
                                     folder_ / "in/a.cc");  // named: taken whatever the patterns say
  EXPECT_EQ(Find().front(), "in/a.cc");
  options_.texts.files.inputs = {folder_ / "nowhere"};
  ExpectError(ExitCode::kIo, {"nowhere"}, [&] { Find(); });
  options_.texts.files.inputs = {folder_ / "in", "/dev/null"};
  ExpectError(ExitCode::kIo, {"/dev/null", "a file or a folder"}, [&] { Find(); });
}

// What an earlier run has written into the folder is no text of a later one.
TEST_F(DataCommand, ItsOwnOutputIsNoInput) {
  options_.output = folder_ / "in/set";
  for (const double fraction : {0.0, 0.5}) {
    options_.validation_fraction = fraction;
    Run();
    const std::string first = ReadFile(folder_ / (fraction > 0 ? "in/set_train.bin" : "in/set.bin"));
    Run();
    EXPECT_EQ(ReadFile(folder_ / (fraction > 0 ? "in/set_train.bin" : "in/set.bin")), first);
  }
}

TEST_F(DataCommand, LinksLeadNowhereTwice) {
  std::filesystem::create_directory_symlink("..", folder_ / "in/sub/loop");
  std::filesystem::create_symlink("b.h", folder_ / "in/again.h");
  std::filesystem::create_symlink("nothing", folder_ / "in/broken.h");
  WriteFile(folder_ / "elsewhere/e.h", "e\n");
  std::filesystem::create_directory_symlink(folder_ / "elsewhere", folder_ / "in/link");
  EXPECT_EQ(Find(), (Paths{"in/a.cc", "in/again.h", "in/binary.h", "in/empty.h", "in/link/e.h", "in/sub/c.h",
                           "in/sub/skip/d.h"}));
  EXPECT_EQ(FindFiles(options_.texts.files).unreadable, 1);
  options_.texts.files.inputs.push_back(folder_ / "in/sub");
  EXPECT_EQ(Find().size(), 7u);
}

TEST_F(DataCommand, EveryTextFileBecomesADocument) {
  const std::string summary = Run();
  const Dataset dataset = OpenDataset(DataFormat::kMegatron, options_.output);
  ASSERT_EQ(dataset.documents(), 4);
  EXPECT_EQ(Text(dataset, 0), "int a();\n");
  EXPECT_EQ(Text(dataset, 1), "int b;\n");
  EXPECT_EQ(Text(dataset, 2), "longest file of all\n");
  EXPECT_EQ(dataset.type(), TokenType::kU8);
  for (const char* part : {"4 read, 1 empty and 1 binary", "20 tokens: ", "sub/c.h", "256 (model.vocab)",
                           "out/set.bin, .idx, .json: 4 documents, 38 tokens"}) {
    EXPECT_NE(summary.find(part), std::string::npos) << summary;
  }
  const std::string first = ReadFile(options_.output + ".bin");
  Run();
  EXPECT_EQ(ReadFile(options_.output + ".bin"), first);
}

TEST_F(DataCommand, ARecordStandsBesideTheDataset) {
  Run();
  EXPECT_EQ(
      ReadDatasetRecord(options_.output),
      (DatasetRecord{.tokenizer = "byte", .tokenizer_hash = "", .tokens = 38, .documents = 4, .largest_id = 116}));
  options_.validation_fraction = 0.25;
  Run();
  EXPECT_EQ(ReadDatasetRecord(options_.output + "_train")->documents, 3);
  EXPECT_EQ(ReadDatasetRecord(options_.output + "_validation")->documents, 1);

  // A file of the name that is something else is the user's.
  WriteFile(folder_ / "out/texts.json", "{\"text\": \"a document\"}\n");
  options_.validation_fraction = 0;
  options_.output = folder_ / "out/texts";
  ExpectError(ExitCode::kIo, {"out/texts.json", "no record of a dataset"}, [&] { RunData(options_); });
}

// The older dataset stays whole while another is being made, and when that one fails, is refused or is killed.
TEST_F(DataCommand, OneWriterAtATimeAndAllOrNothing) {
  const std::vector<std::string> endings = {".bin", ".idx", ".json"};
  const auto files = [&] {
    std::vector<std::string> all;
    for (const std::string& ending : endings) all.push_back(ReadFile(options_.output + ending));
    return all;
  };
  Run();
  const std::vector<std::string> older = files();
  WriteFile(folder_ / "in/new.h", "a new text\n");
  const auto tokenizer = MakeByteTokenizer();
  {
    DatasetBuilder first(options_.output, 0, *tokenizer);
    first.Add(MappedFile(folder_ / "in/new.h"));
    ExpectError(ExitCode::kIo, {options_.output + ".bin", "another process is writing it"}, [&] { RunData(options_); });
    EXPECT_EQ(files(), older);
    first.Finish();
  }
  EXPECT_EQ(OpenDataset(DataFormat::kMegatron, options_.output).documents(), 1);

  Run();
  const std::vector<std::string> newer = files();
  const pid_t child = fork();
  if (child == 0) {
    DatasetBuilder killed(options_.output, 0, *tokenizer);
    killed.Add(MappedFile(folder_ / "in/b.h"));
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(files(), newer);

  std::filesystem::remove(options_.output + ".idx");
  std::filesystem::create_directory(options_.output + ".idx");
  ExpectError(ExitCode::kIo, {"set.idx"}, [&] { RunData(options_); });
  EXPECT_EQ(ReadFile(options_.output + ".bin"), newer[0]);
  EXPECT_EQ(ReadFile(options_.output + ".json"), newer[2]);
}

TEST_F(DataCommand, AFileLongerThanASliceStaysOneDocument) {
  std::string text;
  while (text.size() < (size_t{21} << 20)) text += fmt::format("line {}\n", text.size());
  text += std::string(size_t{5} << 20, 'x');  // and one without line ends
  WriteFile(folder_ / "in/huge", text);
  Run();
  const Dataset dataset = OpenDataset(DataFormat::kMegatron, options_.output);
  ASSERT_EQ(dataset.documents(), 5);
  EXPECT_EQ(Text(dataset, 2), text);
}

TEST_F(DataCommand, EveryLineOfJsonBecomesADocument) {
  std::string many;
  for (int i = 0; i < 6000; ++i) many += fmt::format("{{\"n\": {}, \"body\": \"text {}\"}}\n", i, i);
  WriteFile(folder_ / "json/b.jsonl", many);
  WriteFile(folder_ / "json/a.jsonl", "{\"body\": \"\"}\n{\"body\": \"a\\nb\"}\n");
  options_.texts.files.inputs = {folder_ / "json"};
  options_.texts.jsonl_key = "body";
  const std::string summary = Run();
  EXPECT_NE(summary.find("files        2: 6001 documents, 1 empty ones skipped"), std::string::npos) << summary;
  EXPECT_NE(summary.find("9 tokens: " + folder_ / "json/b.jsonl:1001"), std::string::npos) << summary;
  const Dataset dataset = OpenDataset(DataFormat::kMegatron, options_.output);
  ASSERT_EQ(dataset.documents(), 6001);
  EXPECT_EQ(Text(dataset, 0), "a\nb");
  EXPECT_EQ(Text(dataset, 6000), "text 5999");
  const std::string before = ReadFile(options_.output + ".bin");

  WriteFile(folder_ / "json/c.jsonl", "{\"body\": \"c\"}\n{\"text\": \"d\"}\n");
  ExpectError(ExitCode::kData, {"json/c.jsonl:2", "\"body\""}, [&] { RunData(options_); });
  EXPECT_EQ(ReadFile(options_.output + ".bin"), before);
}

TEST_F(DataCommand, HeldOutDocumentsAreSpreadEvenly) {
  for (int i = 0; i < 16; ++i) WriteFile(folder_ / fmt::format("in/x{:02}", i), fmt::format("{:02}", i));
  options_.validation_fraction = 0.25;
  Run();
  const Dataset train = OpenDataset(DataFormat::kMegatron, options_.output + "_train");
  const Dataset validation = OpenDataset(DataFormat::kMegatron, options_.output + "_validation");
  EXPECT_EQ(train.documents(), 15);
  ASSERT_EQ(validation.documents(), 5);
  EXPECT_EQ(Text(validation, 0), "d\n");
  EXPECT_EQ(Text(validation, 1), "03");
  EXPECT_EQ(Text(validation, 4), "15");

  options_.validation_fraction = 0.01;
  options_.output = folder_ / "out/none";
  ExpectError(ExitCode::kUsage, {"0.01", "20 documents"}, [&] { RunData(options_); });
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out/none_train.bin.partial"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out/none_train.bin"));
}

TEST_F(DataCommand, WrongOptionsAreNamed) {
  const auto with = [&](auto change) {
    DataOptions changed = options_;
    change(changed);
    return [changed] { RunData(changed); };
  };
  ExpectError(ExitCode::kUsage, {"folder or file"}, with([](DataOptions& o) { o.texts.files.inputs.clear(); }));
  ExpectError(ExitCode::kUsage, {"--output"}, with([](DataOptions& o) { o.output.clear(); }));
  ExpectError(ExitCode::kUsage, {"--validation-fraction", "1.5"},
              with([](DataOptions& o) { o.validation_fraction = 1.5; }));
  ExpectError(ExitCode::kUsage, {"--tokenizer"}, with([](DataOptions& o) { o.tokenizer = "words"; }));
  ExpectError(ExitCode::kData, {"no text", "1 file empty, 0 binary"},
              with([](DataOptions& o) { o.texts.files.include = {"empty*"}; }));
  ExpectError(ExitCode::kIo, {"b.h"}, with([&](DataOptions& o) { o.output = folder_ / "in/b.h/set"; }));
}

TEST_F(DataCommand, InfoTellsWhatADatasetHolds) {
  Run();
  testing::internal::CaptureStdout();
  EXPECT_EQ(RunDataInfo({.path = options_.output, .sequence_lengths = {16, 32}, .select_block = 8}), 0);
  const std::string info = testing::internal::GetCapturedStdout();
  for (const char* part :
       {"Megatron, tokens of u8", "documents    4", "tokens       38", "tokenizer    byte\n", "largest id   116",
        "shortest 2, median 9, mean 9.5, longest 20", "16 - 31           1     52.6%",
        // 9, 7, 20 and 2 tokens in blocks of 8: 9 | 7 8 | 12 | 2, and 16 | 9 | 7 4 | 2
        "16          4, padding 40.6%          4, padding 40.6%"}) {
    EXPECT_NE(info.find(part), std::string::npos) << part << "\n" << info;
  }
  ExpectError(ExitCode::kIo, {"nothing"}, [&] { RunDataInfo({.path = folder_ / "nothing"}); });
}

}  // namespace
}  // namespace longspan

#include "launch/data/dataset.h"

#include <numeric>

#include "launch/data/megatron.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

std::vector<int32_t> Document(const Dataset& dataset, int64_t document) {
  std::vector<int32_t> ids(dataset.DocumentLength(document));
  dataset.Read(document, 0, ids);
  return ids;
}

using Ids = std::vector<int32_t>;

// A Megatron index, field by field, so that each can be made wrong.
struct Index {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  uint64_t version = 1;
  uint8_t type = 8;
  uint64_t sequences = 3, bounds = 3;
  std::string lengths = Bytes<int32_t>(2, 1, 3);
  std::string offsets = Bytes<int64_t>(0, 4, 6);
  std::string documents = Bytes<int64_t>(0, 2, 3);
  std::string rest;

  std::string ToBytes() const {
    return magic + Bytes<uint64_t>(version) + Bytes<uint8_t>(type) + Bytes<uint64_t>(sequences, bounds) + lengths +
           offsets + documents + rest;
  }
};

class DatasetTest : public testing::Test {
 protected:
  Dataset OpenIndex(const Index& index, const std::string& tokens = Bytes<uint16_t>(1, 2, 3, 4, 5, 6)) {
    WriteFile(path_ + ".idx", index.ToBytes());
    WriteFile(path_ + ".bin", tokens);
    return OpenDataset(DataFormat::kMegatron, path_);
  }
  void ExpectBad(const Index& index, std::initializer_list<std::string> parts,
                 const std::string& tokens = Bytes<uint16_t>(1, 2, 3, 4, 5, 6)) {
    ExpectError(ExitCode::kData, parts, [&] { OpenIndex(index, tokens); });
    ExpectError(ExitCode::kData, {path_}, [&] { OpenIndex(index, tokens); });
  }
  Dataset OpenFile(DataFormat format, const std::string& bytes, const DatasetOptions& options = {}) {
    WriteFile(path_, bytes);
    return OpenDataset(format, path_, options);
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "set";
};

TEST_F(DatasetTest, MegatronGroupsSequencesIntoDocuments) {
  const Dataset dataset = OpenIndex({});
  EXPECT_EQ(dataset.documents(), 2);
  EXPECT_EQ(dataset.tokens(), 6);
  EXPECT_EQ(Document(dataset, 0), (Ids{1, 2, 3}));
  EXPECT_EQ(Document(dataset, 1), (Ids{4, 5, 6}));
  Ids part(2);
  dataset.Read(1, 1, part);
  EXPECT_EQ(part, (Ids{5, 6}));
  EXPECT_EQ(OpenDataset(DataFormat::kMegatron, path_ + ".idx").tokens(), 6);
  EXPECT_EQ(OpenDataset(DataFormat::kMegatron, path_ + ".bin").tokens(), 6);
  EXPECT_EQ(DetectFormat(path_), DataFormat::kMegatron);

  Index multimodal;
  multimodal.rest = Bytes<int8_t>(0, 0, 0);
  EXPECT_EQ(OpenIndex(multimodal).tokens(), 6);
  Index empty_documents;
  empty_documents.bounds = 5;
  empty_documents.documents = Bytes<int64_t>(0, 0, 2, 3, 3);
  EXPECT_EQ(OpenIndex(empty_documents).documents(), 4);
  EXPECT_EQ(OpenIndex(empty_documents).DocumentLength(0), 0);
}

TEST_F(DatasetTest, FingerprintsTellDataApart) {
  const std::string tokens = Bytes<uint16_t>(1, 2, 3, 4, 5, 6);
  const std::string one = OpenIndex({}, tokens).Fingerprint();
  EXPECT_EQ(OpenIndex({}, tokens).Fingerprint(), one);
  EXPECT_NE(one.find("Megatron of u16, 2 documents, 6 tokens"), std::string::npos) << one;
  for (int token = 0; token < 6; ++token) {
    std::string other = tokens;
    ++other[2 * token];
    EXPECT_NE(OpenIndex({}, other).Fingerprint(), one) << token;
  }
  Index moved;
  moved.documents = Bytes<int64_t>(0, 1, 3);
  EXPECT_NE(OpenIndex(moved, tokens).Fingerprint(), one);
  std::string large(1 << 20, 'a');
  const std::string before = OpenFile(DataFormat::kNanogpt, large).Fingerprint();
  large.back() = 'b';
  EXPECT_NE(OpenFile(DataFormat::kNanogpt, large).Fingerprint(), before);
}

TEST_F(DatasetTest, MegatronReadsEveryIntegerType) {
  const auto read = [&](uint8_t type, int64_t width, const std::string& tokens) {
    Index index;
    index.type = type;
    index.offsets = Bytes<int64_t>(0, 2 * width, 3 * width);
    return Document(OpenIndex(index, tokens), 1);
  };
  const Ids expected = {4, 5, 100};
  EXPECT_EQ(read(1, 1, Bytes<uint8_t>(1, 2, 3, 4, 5, 100)), expected);
  EXPECT_EQ(read(2, 1, Bytes<int8_t>(1, 2, 3, 4, 5, 100)), expected);
  EXPECT_EQ(read(3, 2, Bytes<int16_t>(1, 2, 3, 4, 5, 100)), expected);
  EXPECT_EQ(read(4, 4, Bytes<int32_t>(1, 2, 3, 4, 5, 100)), expected);
  EXPECT_EQ(read(5, 8, Bytes<int64_t>(1, 2, 3, 4, 5, 100)), expected);
  EXPECT_EQ(read(8, 2, Bytes<uint16_t>(1, 2, 3, 4, 5, 60000)), (Ids{4, 5, 60000}));
  ExpectError(ExitCode::kData, {path_, "document 1, offset 2", "-1"},
              [&] { read(3, 2, Bytes<int16_t>(1, 2, 3, 4, 5, -1)); });
  ExpectError(ExitCode::kData, {"4294967296"}, [&] { read(5, 8, Bytes<int64_t>(1, 2, 3, 4, 5, 1LL << 32)); });
}

TEST_F(DatasetTest, BadMegatronIndexesAreRefusedByField) {
  Index index;
  const auto with = [](auto change) {
    Index changed;
    change(changed);
    return changed;
  };
  ExpectBad(with([](Index& i) { i.magic[0] = 'X'; }), {".idx", "magic"});
  ExpectBad(with([](Index& i) { i.version = 2; }), {"version 1, found 2"});
  ExpectBad(with([](Index& i) { i.type = 7; }), {"byte 17", "found 7"});
  ExpectBad(with([](Index& i) { i.sequences = 1ULL << 62; }), {"do not fit"});
  ExpectBad(with([](Index& i) { i.bounds = UINT64_MAX; }), {"do not fit"});
  ExpectBad(with([](Index& i) { i.sequences = 4; }), {"expected", "found"});
  ExpectBad(with([](Index& i) { i.rest = "12"; }), {"94", "96"});
  ExpectBad(with([](Index& i) { i.documents.resize(20); }), {"94", "90"});
  ExpectBad(with([](Index& i) { i.lengths = Bytes<int32_t>(2, -1, 3); }), {"sequence 1", "-1"});
  ExpectBad(with([](Index& i) { i.lengths = Bytes<int32_t>(2, 1, INT32_MAX); }), {"sequence 2", "2147483647"});
  ExpectBad(with([](Index& i) { i.offsets = Bytes<int64_t>(0, 6, 4); }), {"sequence 1", "byte offset 4", "found 6"});
  ExpectBad(with([](Index& i) { i.documents = Bytes<int64_t>(0, 3, 2); }), {"document bound 2", "ascending"});
  ExpectBad(with([](Index& i) { i.documents = Bytes<int64_t>(0, 2, 9); }), {"up to 3, found 9"});
  ExpectBad(with([](Index& i) { i.documents = Bytes<int64_t>(-1, 2, 3); }), {"found -1"});
  ExpectBad(with([](Index& i) { i.documents = Bytes<int64_t>(1, 2, 3); }), {"from 0 to 3, found 1 to 3"});
  ExpectBad(with([](Index& i) { i.documents = Bytes<int64_t>(0, 1, 2); }), {"found 0 to 2"});
  ExpectBad(index, {".bin", "expected 12 bytes"}, Bytes<uint16_t>(1, 2, 3, 4, 5, 6, 7));
  ExpectBad(index, {"sequence 2", "fits in the 5 tokens"}, Bytes<uint16_t>(1, 2, 3, 4, 5));

  Index none;
  none.sequences = 0;
  none.bounds = 1;
  none.lengths = none.offsets = "";
  none.documents = Bytes<int64_t>(0);
  ExpectBad(none, {"expected tokens, found none"}, "");
  none.bounds = 0;
  none.documents = "";
  ExpectBad(none, {"document bound"}, "");
  WriteFile(path_ + ".idx", "MMIDIDX");
  ExpectError(ExitCode::kData, {"34", "found 7"}, [&] { OpenDataset(DataFormat::kMegatron, path_); });
  ExpectError(ExitCode::kIo, {"nowhere.idx"}, [&] { OpenDataset(DataFormat::kMegatron, folder_ / "nowhere"); });
}

TEST_F(DatasetTest, WriterKeepsDocumentsAndChoosesTheType) {
  for (const int64_t vocab : {int64_t{256}, int64_t{257}, int64_t{65500}}) {
    MegatronWriter writer(path_, vocab);
    const Ids first = {1, 2, 255}, second = {static_cast<int32_t>(vocab) - 1};
    writer.Append(first);
    writer.EndDocument();
    writer.EndDocument();  // an empty one
    writer.Append(first);
    writer.Append(second);
    writer.EndDocument();
    EXPECT_EQ(writer.tokens(), 7);
    CommitAll(writer.Complete());
    const Dataset dataset = OpenDataset(DataFormat::kMegatron, path_);
    EXPECT_STREQ(TokenTypeName(dataset.type()), vocab == 256 ? "u8" : vocab == 257 ? "u16" : "i32");
    ASSERT_EQ(dataset.documents(), 3);
    EXPECT_EQ(Document(dataset, 0), first);
    EXPECT_EQ(dataset.DocumentLength(1), 0);
    EXPECT_EQ(Document(dataset, 2), (Ids{1, 2, 255, static_cast<int32_t>(vocab) - 1}));
  }
  EXPECT_EQ(ReadFile(path_ + ".idx").substr(0, 9), std::string("MMIDIDX\0\0", 9));

  // Refused ids, and what an unfinished writer leaves behind.
  const std::string other = folder_ / "other";
  {
    MegatronWriter writer(other, 256);
    ExpectError(ExitCode::kData, {"256", "vocabulary"}, [&] { writer.Append(Ids{256}); });
  }
  EXPECT_FALSE(std::filesystem::exists(other + ".bin"));
  EXPECT_FALSE(std::filesystem::exists(other + ".bin.partial"));
}

TEST_F(DatasetTest, LlmcDocumentsStartAtTheSeparator) {
  std::string header = Bytes<int32_t>(20240520, 1, 7);
  header.resize(1024);
  const Dataset gpt2 = OpenFile(DataFormat::kLlmc, header + Bytes<uint16_t>(50256, 1, 2, 50256, 50256, 3, 4));
  ASSERT_EQ(gpt2.documents(), 3);
  EXPECT_EQ(Document(gpt2, 0), (Ids{50256, 1, 2}));
  EXPECT_EQ(Document(gpt2, 2), (Ids{50256, 3, 4}));
  EXPECT_EQ(DetectFormat(path_), DataFormat::kLlmc);

  header = Bytes<int32_t>(20240801, 7, 3);
  header.resize(1024);
  const Dataset llama = OpenFile(DataFormat::kLlmc, header + Bytes<uint32_t>(100000, 128000, 5));
  ASSERT_EQ(llama.documents(), 2);
  EXPECT_EQ(Document(llama, 1), (Ids{128000, 5}));
  EXPECT_EQ(OpenFile(DataFormat::kLlmc, header + Bytes<uint32_t>(1, 2, 3), {.separator = 3}).documents(), 2);
}

TEST_F(DatasetTest, BadLlmcFilesAreRefused) {
  const auto expect = [&](std::initializer_list<std::string> parts, std::string header, const std::string& tokens) {
    header.resize(1024);
    ExpectError(ExitCode::kData, parts, [&] { OpenFile(DataFormat::kLlmc, header + tokens); });
  };
  expect({path_, "byte 0", "20240522"}, Bytes<int32_t>(20240522, 1, 1), "12");
  expect({"byte 4", "found 2"}, Bytes<int32_t>(20240520, 2, 1), "12");
  expect({"byte 8", "2 tokens of 2 bytes, found 2"}, Bytes<int32_t>(20240520, 1, 2), "12");
  expect({"byte 8", "-1"}, Bytes<int32_t>(20240520, 1, -1), "");
  expect({"found none"}, Bytes<int32_t>(20240520, 1, 0), "");
  ExpectError(ExitCode::kData, {"1024", "found 4"}, [&] { OpenFile(DataFormat::kLlmc, Bytes<int32_t>(20240520)); });
}

TEST_F(DatasetTest, NanogptDocumentsEndAtTheSeparator) {
  const std::string bytes = Bytes<uint16_t>(1, 2, 50256, 3, 50256, 4);
  const Dataset dataset = OpenFile(DataFormat::kNanogpt, bytes);
  ASSERT_EQ(dataset.documents(), 3);
  EXPECT_EQ(Document(dataset, 0), (Ids{1, 2, 50256}));
  EXPECT_EQ(Document(dataset, 2), (Ids{4}));
  EXPECT_EQ(OpenFile(DataFormat::kNanogpt, bytes, {.separator = 7}).documents(), 1);
  EXPECT_EQ(DetectFormat(path_), DataFormat::kNanogpt);
  ExpectError(ExitCode::kData, {path_, "found 3 bytes"}, [&] { OpenFile(DataFormat::kNanogpt, "123"); });
  ExpectError(ExitCode::kData, {path_, "found none"}, [&] { OpenFile(DataFormat::kNanogpt, ""); });
  // A header is not trained on.
  ExpectError(ExitCode::kData, {path_, "llm.c's magic 20240520", "data.format=LLMC"},
              [&] { OpenFile(DataFormat::kNanogpt, Bytes<int32_t>(20240520, 1, 100) + std::string(1012, '\0')); });
}

// Several files are the one dataset that their documents would make in one file.
TEST_F(DatasetTest, APatternMeansAllFilesThatMatch) {
  const auto index = [](int32_t first, int32_t second) {
    Index made;
    made.sequences = 2;
    made.lengths = Bytes<int32_t>(first, second);
    made.offsets = Bytes<int64_t>(0, 2 * first);
    made.documents = Bytes<int64_t>(0, 1, 2);
    return made;
  };
  const auto write = [&](const std::string& name, const Index& made, const std::string& tokens) {
    WriteFile(folder_ / (name + ".idx"), made.ToBytes());
    WriteFile(folder_ / (name + ".bin"), tokens);
  };
  std::string tokens;
  for (int i = 1; i <= 40; ++i) tokens += Bytes<uint16_t>(i);
  write("part_1", index(7, 13), tokens.substr(0, 40));
  write("part_0", index(11, 9), tokens.substr(40));
  write("other", index(3, 0), tokens.substr(0, 6));
  const Dataset set = OpenDataset(DataFormat::kMegatron, folder_ / "part_*");
  EXPECT_EQ(set.path(), folder_ / "part_*");
  ASSERT_EQ(set.documents(), 4);
  EXPECT_EQ(set.tokens(), 40);
  EXPECT_EQ(Document(set, 0).front(), 21);  // by name
  EXPECT_EQ(Document(set, 1).back(), 40);
  EXPECT_EQ(Document(set, 2), (Ids{1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(Document(set, 3).back(), 20);
  EXPECT_EQ(OpenDataset(DataFormat::kMegatron, folder_ / "part_*.bin").tokens(), 40);
  EXPECT_EQ(DetectFormat(folder_ / "part_?"), DataFormat::kMegatron);
  ASSERT_EQ(set.files().size(), 2U);
  EXPECT_EQ(set.files()[1].path, folder_ / "part_1.bin");
  EXPECT_EQ(set.files()[1].documents, 2);

  Index whole;
  whole.sequences = 4;
  whole.bounds = 5;
  whole.lengths = Bytes<int32_t>(11, 9, 7, 13);
  whole.offsets = Bytes<int64_t>(0, 22, 40, 54);
  whole.documents = Bytes<int64_t>(0, 1, 2, 3, 4);
  EXPECT_EQ(set.Fingerprint(), OpenIndex(whole, tokens.substr(40) + tokens.substr(0, 40)).Fingerprint());

  // Places are those within a file.
  const DatasetOptions small = {.vocab = 16, .separator = {}};
  ExpectError(ExitCode::kData, {folder_ / "part_1.bin", "document 1, offset 8: token id 16"}, [&] {
    Ids ids(13);
    OpenDataset(DataFormat::kMegatron, folder_ / "part_*", small).Read(3, 0, ids);
  });
  const Dataset bad = OpenDataset(DataFormat::kMegatron, folder_ / "part_*", small);
  EXPECT_EQ(bad.FindBadToken()->file, folder_ / "part_0.bin");
  EXPECT_FALSE(bad.FindBadToken(4, 8));  // 1 to 5 of the second file
  ASSERT_TRUE(bad.FindBadToken(3, 4));
  EXPECT_EQ(bad.FindBadToken(3, 4)->file, folder_ / "part_1.bin");
  EXPECT_EQ(bad.FindBadToken(3, 4)->document, 1);
  EXPECT_EQ(bad.FindBadToken(3, 4)->offset, 8);
  EXPECT_EQ(bad.FindBadToken(1, 3)->file, folder_ / "part_0.bin");  // its part ends in the second file

  Index wide = index(1, 1);
  wide.type = 4;
  wide.offsets = Bytes<int64_t>(0, 4);
  write("part_2", wide, Bytes<int32_t>(1, 2));
  ExpectError(ExitCode::kData, {"part_2.bin", "tokens of u16 as in", "part_0.bin", "found i32"},
              [&] { OpenDataset(DataFormat::kMegatron, folder_ / "part_*"); });
  std::filesystem::remove(folder_ / "part_2.bin");
  ExpectError(ExitCode::kIo, {"part_2.bin"}, [&] { OpenDataset(DataFormat::kMegatron, folder_ / "part_*"); });
  ExpectError(ExitCode::kIo, {"nothing_*", "found none"},
              [&] { OpenDataset(DataFormat::kMegatron, folder_ / "nothing_*"); });
  // A file of that very name is no pattern.
  EXPECT_EQ(OpenFile(DataFormat::kNanogpt, Bytes<uint16_t>(1, 2)).tokens(), 2);
  WriteFile(folder_ / "a[1]", Bytes<uint16_t>(1, 2, 3));
  EXPECT_EQ(OpenDataset(DataFormat::kNanogpt, folder_ / "a[1]").tokens(), 3);
}

TEST_F(DatasetTest, ShardsOfLlmcAreOneDataset) {
  const auto shard = [](auto magic, auto version, const std::string& tokens, int32_t count) {
    std::string header = Bytes<int32_t>(magic, version, count);
    header.resize(1024);
    return header + tokens;
  };
  WriteFile(folder_ / "web_train_000001.bin", shard(20240801, 7, Bytes<uint32_t>(128000, 5, 100000, 128000, 6), 5));
  WriteFile(folder_ / "web_train_000002.bin", shard(20240801, 7, Bytes<uint32_t>(128000, 7), 2));
  const Dataset set = OpenDataset(DetectFormat(folder_ / "web_train_*.bin"), folder_ / "web_train_*.bin");
  EXPECT_EQ(set.format(), "llm.c");
  EXPECT_EQ(set.type(), TokenType::kU32);
  ASSERT_EQ(set.documents(), 3);
  EXPECT_EQ(Document(set, 0), (Ids{128000, 5, 100000}));
  EXPECT_EQ(Document(set, 2), (Ids{128000, 7}));
  // Cut off, overlong, and of another version.
  for (const auto& [bytes, part] : {std::pair{shard(20240801, 7, Bytes<uint32_t>(1, 2), 3), "found 8 bytes"},
                                    {shard(20240801, 7, Bytes<uint32_t>(1, 2), 1), "found 8 bytes"},
                                    {shard(20240801, 1, Bytes<uint32_t>(1), 1), "version 7, found 1"},
                                    {shard(20240801, 7, "", -5), "expected -5 tokens"},
                                    {shard(20240801, 7, "", 0), "expected tokens, found none"}}) {
    WriteFile(folder_ / "web_train_000002.bin", bytes);
    ExpectError(ExitCode::kData, {"web_train_000002.bin", part},
                [&] { OpenDataset(DataFormat::kLlmc, folder_ / "web_train_*.bin"); });
  }
}

TEST_F(DatasetTest, IdsBeyondTheVocabularyAreNamed) {
  const Dataset dataset =
      OpenFile(DataFormat::kNanogpt, Bytes<uint16_t>(1, 2, 9, 3, 9, 12), {.vocab = 12, .separator = 9});
  Ids ids(3);
  dataset.Read(0, 0, ids);
  ids.resize(1);
  ExpectError(ExitCode::kData, {path_, "document 2, offset 0", "id 12", "vocabulary of 12"},
              [&] { dataset.Read(2, 0, ids); });
}

}  // namespace
}  // namespace longspan

#include "launch/data/batches.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "launch/data/blended_source.h"
#include "launch/data/dataset.h"
#include "launch/data/megatron.h"
#include "launch/data/packed_source.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

using Ids = std::vector<int32_t>;

// Sequence `index`, over values that no source writes.
Sequence Filled(const SequenceSource& source, int64_t index) {
  Sequence sequence(source.length());
  for (Ids* ids : {&sequence.tokens, &sequence.targets, &sequence.doc_start}) std::fill(ids->begin(), ids->end(), 99);
  source.Fill(index, sequence.tokens, sequence.targets, sequence.doc_start);
  return sequence;
}

class Batches : public testing::Test {
 protected:
  // A dataset of these document lengths; token i of all is i + 1, so that every token is told apart.
  std::shared_ptr<const Dataset> MakeDataset(const std::vector<int64_t>& lengths) {
    MegatronWriter writer(path_, 100000);
    int32_t next = 1;
    for (const int64_t length : lengths) {
      Ids ids(length);
      std::iota(ids.begin(), ids.end(), next);
      next += static_cast<int32_t>(length);
      writer.Append(ids);
      writer.EndDocument();
    }
    CommitAll(writer.Complete());
    return std::make_shared<const Dataset>(OpenDataset(DataFormat::kMegatron, path_));
  }
  std::unique_ptr<SequenceSource> Pack(const std::vector<int64_t>& lengths, const Packing& packing) {
    return MakePackedSource(MakeDataset(lengths), 0, static_cast<int64_t>(lengths.size()), packing);
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "set";
};

TEST_F(Batches, DocumentsArePackedAtMultiplesOfTheBlock) {
  const auto source = Pack({3, 4, 0, 1, 10, 2}, {.length = 12, .alignment = 4, .document_masks = true});
  ASSERT_EQ(source->size(), 3);
  const Sequence first = Filled(*source, 0), second = Filled(*source, 1), third = Filled(*source, 2);
  EXPECT_EQ(first.tokens, (Ids{1, 2, 3, 0, 4, 5, 6, 7, 8, 0, 0, 0}));
  EXPECT_EQ(first.targets, (Ids{2, 3, -1, -1, 5, 6, 7, -1, -1, -1, -1, -1}));
  EXPECT_EQ(first.doc_start, (Ids{0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8}));
  EXPECT_EQ(second.tokens, (Ids{9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 0, 0}));
  EXPECT_EQ(second.doc_start, (Ids(12, 0)));
  EXPECT_EQ(third.tokens, (Ids{19, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(third.targets, (Ids{20, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}));
  EXPECT_NE(source->Summary().find("6 documents, 20 tokens in 3 sequences of 12, padding 44.4%, labels 41.7%"),
            std::string::npos)
      << source->Summary();
}

TEST_F(Batches, ALongDocumentContinuesAsAnother) {
  const auto source = Pack({2, 7}, {.length = 4, .alignment = 2, .document_masks = true});
  ASSERT_EQ(source->size(), 3);
  EXPECT_EQ(Filled(*source, 0).tokens, (Ids{1, 2, 3, 4}));
  EXPECT_EQ(Filled(*source, 0).targets, (Ids{2, -1, 4, -1}));
  EXPECT_EQ(Filled(*source, 1).tokens, (Ids{5, 6, 7, 8}));
  EXPECT_EQ(Filled(*source, 1).doc_start, (Ids{0, 0, 0, 0}));
  EXPECT_EQ(Filled(*source, 2).targets, (Ids{-1, -1, -1, -1}));
}

TEST_F(Batches, WithoutMasksNothingIsPadded) {
  const auto source = Pack({3, 4, 1}, {.length = 8, .alignment = 1, .document_masks = false});
  ASSERT_EQ(source->size(), 1);
  EXPECT_EQ(Filled(*source, 0).tokens, (Ids{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(Filled(*source, 0).targets, (Ids{2, 3, -1, 5, 6, 7, -1, -1}));
  EXPECT_EQ(Filled(*source, 0).doc_start, Ids(8, 0));
}

// Whatever the lengths: every token once and in order, starts valid, labels the next token of the same piece.
TEST_F(Batches, AnyLengthsKeepTheRules) {
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    std::vector<int64_t> lengths(1 + random() % 20);
    for (int64_t& length : lengths) length = random() % (random() % 4 == 0 ? 100 : 9);
    lengths.push_back(1);
    const int64_t block = int64_t{1} << (random() % 4), length = 1 + static_cast<int64_t>(random() % 40);
    const auto source = Pack(lengths, {.length = length, .alignment = block, .document_masks = true});
    int32_t next = 1;
    for (int64_t i = 0; i < source->size(); ++i) {
      const Sequence sequence = Filled(*source, i);
      ValidateDocStart(sequence.doc_start, block, "packed");
      for (int64_t t = 0; t < length; ++t) {
        if (sequence.tokens[t] != 0) {
          ASSERT_EQ(sequence.tokens[t], next++);
        }
        const bool labelled = t + 1 < length && sequence.tokens[t] != 0 && sequence.tokens[t + 1] != 0 &&
                              sequence.doc_start[t] == sequence.doc_start[t + 1];
        ASSERT_EQ(sequence.targets[t], labelled ? sequence.tokens[t + 1] : -1);
      }
    }
    EXPECT_EQ(next - 1, std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  }
}

TEST_F(Batches, BestFitKeepsDocumentsWhole) {
  // Blocks of 4 in sequences of 12: the longest first, where the least is left.
  const auto source = Pack({3, 9, 4, 1, 14, 5, 0}, {.length = 12, .alignment = 4, .kind = PackingKind::kBestFit});
  ASSERT_EQ(source->size(), 4);
  EXPECT_EQ(Filled(*source, 0).tokens, (Ids{4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0}));
  EXPECT_EQ(Filled(*source, 1).tokens, (Ids{18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29}));
  EXPECT_EQ(Filled(*source, 2).tokens, (Ids{32, 33, 34, 35, 36, 0, 0, 0, 1, 2, 3, 0}));
  EXPECT_EQ(Filled(*source, 2).doc_start, (Ids{0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8}));
  EXPECT_EQ(Filled(*source, 3).tokens, (Ids{13, 14, 15, 16, 17, 0, 0, 0, 30, 31, 0, 0}));
  EXPECT_NE(source->Summary().find("in 4 sequences of 12 by best fit, padding 25.0%"), std::string::npos)
      << source->Summary();
}

// Whatever the lengths: every token once, documents that fit whole, the others in pieces of S and a rest, and seldom
// more padding than when they are cut wherever a sequence ends.
TEST_F(Batches, BestFitLosesNoToken) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    std::vector<int64_t> lengths(1 + random() % 40);
    for (int64_t& length : lengths) length = random() % (random() % 4 == 0 ? 200 : 30);
    lengths.push_back(1);
    const auto dataset = MakeDataset(lengths);
    const int64_t first = random() % lengths.size(), last = std::ssize(lengths);
    const int64_t length = 1 + static_cast<int64_t>(random() % 70);
    const Packing packing = {
        .length = length, .alignment = int64_t{1} << (random() % 5), .kind = PackingKind::kBestFit};
    const auto packer = MakePacker(*dataset, first, last, packing);
    std::vector<std::vector<std::pair<int64_t, int64_t>>> found(lengths.size());  // offset, tokens
    int64_t tokens = 0, pieces = 0;
    for (int64_t i = 0; i < packer->size(); ++i) {
      int64_t end = 0;
      for (const Piece& piece : packer->PiecesOf(i)) {
        ASSERT_GE(piece.position, end);
        ASSERT_EQ(piece.position % packing.alignment, 0);
        end = piece.position + piece.tokens;
        ASSERT_LE(end, length);
        found[piece.document].emplace_back(piece.offset, piece.tokens);
        tokens += piece.tokens;
        ++pieces;
      }
      ASSERT_GT(end, 0);
    }
    EXPECT_EQ(packer->tokens(), tokens);
    EXPECT_EQ(packer->pieces(), pieces);
    for (int64_t document = 0; document < last; ++document) {
      std::sort(found[document].begin(), found[document].end());
      int64_t offset = 0;
      for (const auto& [begin, count] : found[document]) {
        ASSERT_EQ(begin, offset);
        ASSERT_EQ(count, std::min(length, lengths[document] - offset));
        offset += count;
      }
      ASSERT_EQ(offset, document < first ? 0 : lengths[document]);
    }
  }
}

// Many documents as they are in the world: a few long, most short.
TEST_F(Batches, BestFitHasLittlePadding) {
  std::mt19937 random(5);
  std::vector<int64_t> lengths(800);
  for (int64_t& length : lengths) length = 1 + static_cast<int64_t>(random() % (uint32_t{1} << (random() % 10)));
  const auto dataset = MakeDataset(lengths);
  const auto padding = [&](int64_t alignment, PackingKind kind) {
    const Packing packing = {.length = 512, .alignment = alignment, .kind = kind};
    return PaddingShare(*MakePacker(*dataset, 0, 800, packing), 512);
  };
  EXPECT_LT(padding(1, PackingKind::kBestFit), 0.01);
  EXPECT_LT(padding(64, PackingKind::kBestFit), padding(64, PackingKind::kSequential) + 0.01);
}

TEST_F(Batches, ARankLoadsItsPart) {
  const auto source = Pack({20, 9, 100, 3}, {.length = 64, .alignment = 8, .document_masks = true});
  const NsaConfig nsa{.block = 8, .stride = 4, .select_block = 8};
  const Layout layout(LayoutKind::kHeadTail, 64, 2, 8);
  for (int rank = 0; rank < 2; ++rank) {
    BatchLoader loader(*source, layout, rank, nsa, 5);
    Batch batch, expected;
    loader.Load(1, batch);
    CutSequence(Filled(*source, loader.SequenceAt(1)), layout, rank, nsa, &expected);
    EXPECT_EQ(batch.tokens, expected.tokens);
    EXPECT_EQ(batch.targets, expected.targets);
    EXPECT_EQ(batch.positions, expected.positions);
    EXPECT_EQ(batch.summary_positions, expected.summary_positions);
    EXPECT_EQ(batch.doc_start, expected.doc_start);
    EXPECT_EQ(batch.labels, expected.labels);
  }
}

TEST_F(Batches, TheOrderIsAFunctionOfSeedAndPlace) {
  const auto source = Pack(std::vector<int64_t>(37, 4), {.length = 4, .alignment = 4, .document_masks = true});
  const Layout layout(LayoutKind::kContiguous, 4, 1, 4);
  NsaConfig nsa;
  BatchLoader forward(*source, layout, 0, nsa, 1), resumed(*source, layout, 0, nsa, 1),
      other(*source, layout, 0, nsa, 2);
  std::vector<int64_t> order, other_order;
  for (int64_t place = 0; place < 3 * 37; ++place) {
    order.push_back(forward.SequenceAt(place));
    other_order.push_back(other.SequenceAt(place));
  }
  EXPECT_NE(order, other_order);
  for (const int64_t place : {110, 40, 3, 75}) EXPECT_EQ(resumed.SequenceAt(place), order[place]);
  std::vector<int64_t> all(37);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_NE(std::vector(order.begin(), order.begin() + 37), std::vector(order.begin() + 37, order.begin() + 74));
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::sort(order.begin() + 37 * epoch, order.begin() + 37 * (epoch + 1));
    EXPECT_EQ(std::vector(order.begin() + 37 * epoch, order.begin() + 37 * (epoch + 1)), all);
  }
  // Fixed for good: a checkpoint continues on another machine, with another library.
  EXPECT_EQ(ShuffledOrder(8, 1, 0), (std::vector<uint32_t>{7, 6, 0, 5, 2, 3, 1, 4}));
}

// A source of `size` sequences whose tokens say which it is.
class Numbered : public SequenceSource {
 public:
  explicit Numbered(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  int64_t length() const override { return 4; }
  int64_t labels() const override { return size_; }
  std::string Summary() const override { return "numbered"; }
  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t>, std::span<int32_t>) const override {
    std::fill(tokens.begin(), tokens.end(), static_cast<int32_t>(1000 * size_ + index));
  }

 private:
  const int64_t size_;
};

std::unique_ptr<SequenceSource> Blended(const std::vector<std::pair<int64_t, double>>& parts) {
  std::vector<WeightedSource> sources;
  for (const auto& [size, weight] : parts) sources.push_back({"", weight, std::make_unique<Numbered>(size)});
  return Blend(std::move(sources));
}

TEST(Blend, NumbersGoThroughTheParts) {
  const auto source = Blended({{3, 1}, {5, 2}, {2, 3}});
  EXPECT_EQ(source->size(), 10);
  EXPECT_EQ(source->labels(), 10);
  Ids tokens(4), unused(4);
  const Ids expected = {3000, 3001, 3002, 5000, 5001, 5002, 5003, 5004, 2000, 2001};
  for (int64_t i = 0; i < 10; ++i) {
    source->Fill(i, tokens, unused, unused);
    EXPECT_EQ(tokens[3], expected[i]);
  }
  EXPECT_EQ(source->parts()[2].first, 8);
  EXPECT_EQ(Blended({{7, 0.5}})->size(), 7);
  EXPECT_EQ(Blend({}), nullptr);
}

// Every part has its share, in all beginnings of the order, and goes through all of its own before it begins again.
TEST(Blend, PartsHaveTheirSharesEverywhere) {
  for (const auto& parts : std::vector<std::vector<std::pair<int64_t, double>>>{
           {{100, 1}, {100, 1}},
           {{37, 0.7}, {501, 0.2}, {11, 0.1}},
           {{1000, 0.001}, {3, 0.999}},
           {{5, 1e-6}, {7, 3}, {11, 3}, {13, 3}, {17, 3}, {19, 0.5}, {23, 1 / 3.0}}}) {
    const auto source = Blended(parts);
    SequenceOrder order(source->parts(), 9);
    double weights = 0;
    for (const auto& part : parts) weights += part.second;
    std::vector<int64_t> count(parts.size());
    std::vector<std::vector<int64_t>> drawn(parts.size());
    for (int64_t place = 0; place < 10'000; ++place) {
      const std::vector<double> epochs = order.Epochs(place);
      for (size_t i = 0; i < parts.size(); ++i) {
        EXPECT_DOUBLE_EQ(epochs[i], static_cast<double>(count[i]) / static_cast<double>(parts[i].first));
        ASSERT_LE(std::abs(static_cast<double>(count[i]) - static_cast<double>(place) * parts[i].second / weights),
                  0.5 * static_cast<double>(parts.size()) + 1)
            << "part " << i << ", place " << place;
      }
      const int64_t number = order.At(place);
      size_t part = 0;
      while (part + 1 < parts.size() && source->parts()[part + 1].first <= number) ++part;
      ++count[part];
      drawn[part].push_back(number - source->parts()[part].first);
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      // Within 1% of its share of 10,000.
      EXPECT_NEAR(static_cast<double>(count[i]), 10'000 * parts[i].second / weights, 100) << i;
      for (int64_t begin = 0; begin + parts[i].first <= std::ssize(drawn[i]); begin += parts[i].first) {
        std::vector<int64_t> epoch(drawn[i].begin() + begin, drawn[i].begin() + begin + parts[i].first);
        std::sort(epoch.begin(), epoch.end());
        for (int64_t k = 0; k < parts[i].first; ++k) ASSERT_EQ(epoch[k], k);
      }
    }
  }
}

// Neither what was asked before nor how many ranks ask changes the order: it is that of the places.
TEST(Blend, TheOrderIsTheSameAfterAResumeAndOnAnotherWorld) {
  const auto source = Blended({{37, 0.7}, {501, 0.2}, {11, 0.1}});
  SequenceOrder order(source->parts(), 9);
  std::vector<int64_t> numbers;
  for (int64_t place = 0; place < 960; ++place) numbers.push_back(order.At(place));
  for (const int64_t step : {0, 1, 17, 39}) {
    for (const int64_t dp : {1, 2, 4, 8, 24}) {
      for (int64_t replica = 0; replica < dp; ++replica) {
        SequenceOrder resumed(source->parts(), 9);
        for (int64_t micro = 0; micro < 24 / dp; ++micro) {
          const int64_t place = BatchLoader::Place(step, 24, micro, dp, replica);
          EXPECT_EQ(resumed.At(place), numbers[place]) << place;
        }
      }
    }
  }
  SequenceOrder other(source->parts(), 10);
  int64_t same = 0;
  for (int64_t place = 0; place < 960; ++place) same += other.At(place) == numbers[place] ? 1 : 0;
  EXPECT_LT(same, 300);
  // Far away it is as quick, and as exact.
  const int64_t far = int64_t{1} << 40;
  SequenceOrder there(source->parts(), 9);
  EXPECT_EQ(order.At(far), there.At(far));
  const std::vector<double> epochs = order.Epochs(far);
  EXPECT_NEAR(epochs[1] * 501, 0.2 * static_cast<double>(far), 3);
  EXPECT_DOUBLE_EQ(epochs[0] * 37 + epochs[1] * 501 + epochs[2] * 11, static_cast<double>(far));
}

TEST_F(Batches, SourcesOfABlend) {
  const std::string first = path_ + "1", second = path_ + "2", held_out = path_ + "3";
  for (const auto& [path, documents] : {std::pair{first, 20}, {second, 10}, {held_out, 3}}) {
    MegatronWriter writer(path, 100000);
    for (int i = 0; i < documents; ++i) {
      writer.Append(Ids(8, documents));
      writer.EndDocument();
    }
    CommitAll(writer.Complete());
  }
  DataConfig data;
  data.sequence_length = 8;
  data.validation_fraction = 0.25;
  data.blend = {"3 " + first, "1 " + second + " validation=" + held_out};
  const Sources sources = OpenSources(data, 1000, 8);
  EXPECT_EQ(sources.train->size(), 25);
  EXPECT_EQ(sources.validation->size(), 8);
  ASSERT_EQ(sources.train->parts().size(), 2U);
  EXPECT_EQ(sources.train->parts()[1].name, second);
  EXPECT_EQ(sources.train->parts()[1].first, 15);
  EXPECT_EQ(sources.train->parts()[1].weight, 1);
  EXPECT_EQ(Filled(*sources.validation, 4).tokens[0], 20);
  EXPECT_EQ(Filled(*sources.validation, 5).tokens[0], 3);
  ASSERT_EQ(sources.files.size(), 3U);
  EXPECT_EQ(sources.files[2].key, "data.blend[1].validation");
  for (const char* part : {"2 datasets blended: 25 sequences of 8", " 75.0% ", " 25.0% "}) {
    EXPECT_NE(sources.train->Summary().find(part), std::string::npos) << sources.train->Summary();
  }
  data.blend = {"1 " + first, "1 " + second + " validation_fraction=0"};
  EXPECT_EQ(OpenSources(data, 1000, 8).validation->size(), 5);
  ExpectError(ExitCode::kData, {"data.blend[0]", first, "model.vocab = 20"},
              [&] { CheckTokens(OpenSources(data, 20, 8), 20); });
  data.blend = {"1 " + first, "1 " + path_ + "4"};
  ExpectError(ExitCode::kIo, {path_ + "4"}, [&] { OpenSources(data, 1000, 8); });
}

TEST_F(Batches, ReplicasShareEveryStepOut) {
  for (const int64_t dp : {1, 2, 3, 6}) {
    std::vector<int64_t> places;
    for (int64_t micro = 0; micro < 6 / dp; ++micro) {
      for (int64_t replica = 0; replica < dp; ++replica) places.push_back(BatchLoader::Place(2, 6, micro, dp, replica));
    }
    EXPECT_EQ(places, (std::vector<int64_t>{12, 13, 14, 15, 16, 17}));
  }
}

// Any sequence can be asked for first, though only some beginnings are kept.
TEST_F(Batches, SequencesComeInAnyOrder) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 300; ++i) lengths.push_back(i * 7 % 11);
  const auto source = Pack(lengths, {.length = 16, .alignment = 4, .document_masks = true});
  ASSERT_GT(source->size(), 100);
  std::vector<Ids> tokens;
  int64_t labels = 0;
  for (int64_t i = 0; i < source->size(); ++i) {
    const Sequence sequence = Filled(*source, i);
    tokens.push_back(sequence.tokens);
    labels += std::count_if(sequence.targets.begin(), sequence.targets.end(), [](int32_t id) { return id >= 0; });
  }
  EXPECT_EQ(source->labels(), labels);
  for (int64_t i = source->size() - 1; i >= 0; --i) EXPECT_EQ(Filled(*source, i).tokens, tokens[i]) << i;
}

// All tokens once, each part by one rank.
TEST_F(Batches, TokensOutsideTheVocabularyAreFoundByOneOfTheParts) {
  MakeDataset({5, 0, 6});  // 1 to 11
  DataConfig data;
  data.train = path_;
  data.validation_fraction = 0;
  data.sequence_length = 8;
  for (const int64_t parts : {1, 2, 3, 7, 11, 20}) {
    const auto found = [&](int64_t vocab) {
      int64_t count = 0;
      const Sources sources = OpenSources(data, vocab, 8);
      for (int64_t part = 0; part < parts; ++part) {
        try {
          CheckTokens(sources, vocab, part, parts);
        } catch (const Error&) {
          ++count;
        }
      }
      return count;
    };
    EXPECT_EQ(found(12), 0);
    EXPECT_EQ(found(11), 1);
  }
  ExpectError(ExitCode::kData, {"data.train", path_, "document 2, offset 2: token id 8 ", "model.vocab = 8"},
              [&] { CheckTokens(OpenSources(data, 8, 8), 8); });
}

TEST_F(Batches, ADatasetWithoutLabelsIsRefused) {
  MakeDataset({1, 1, 1, 1});
  DataConfig data;
  data.train = path_;
  data.sequence_length = 8;
  data.validation_fraction = 0;
  ExpectError(ExitCode::kData, {"data.train: ", path_, "none to learn from"}, [&] { OpenSources(data, 1000, 8); });
  MakeDataset({4, 1});
  data.validation_fraction = 0.5;
  ExpectError(ExitCode::kData, {"data.validation_fraction: ", path_}, [&] { OpenSources(data, 1000, 8); });
  data.format = DataFormat::kFibonacci;
  data.sequence_length = 2;
  ExpectError(ExitCode::kData, {"data.train: ", "Fibonacci"}, [&] { OpenSources(data, 10, 8); });
}

TEST_F(Batches, SourcesOfAConfiguration) {
  MakeDataset(std::vector<int64_t>(20, 8));
  DataConfig data;
  data.train = path_;
  data.sequence_length = 8;
  data.validation_fraction = 0.1;
  const Sources split = OpenSources(data, 1000, 8);
  EXPECT_EQ(split.train->size(), 18);
  EXPECT_EQ(split.validation->size(), 2);
  EXPECT_EQ(Filled(*split.validation, 0).tokens[0], 18 * 8 + 1);

  data.validation_fraction = 0;
  EXPECT_EQ(OpenSources(data, 1000, 8).validation, nullptr);
  data.validation = path_;
  EXPECT_EQ(OpenSources(data, 1000, 8).validation->size(), 20);

  ExpectError(ExitCode::kData, {path_, "document 0, offset 4", "id 5", "vocabulary of 5"},
              [&] { Filled(*OpenSources(data, 5, 8).train, 0); });
  MakeDataset({50});
  data.validation = "";
  data.validation_fraction = 0.05;
  ExpectError(ExitCode::kConfig, {"data.validation_fraction", "two documents"}, [&] { OpenSources(data, 1000, 8); });
  data.format = DataFormat::kFibonacci;
  EXPECT_EQ(OpenSources(data, 10, 8).train->size(), 82);
  ExpectError(ExitCode::kConfig, {"model.vocab = 9"}, [&] { OpenSources(data, 9, 8); });
}

}  // namespace
}  // namespace longspan

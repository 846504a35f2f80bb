// Decoding is the training forward, position by position: same outputs, same blocks; one token at a time, several,
// after a prefill, in batches of sequences of different lengths whose pages lie anywhere, and after tokens were taken
// back.
#include <algorithm>
#include <limits>
#include <memory>
#include <random>

#include "tests/nsa/library.h"
#include "tests/support/compare.h"

namespace longspan::test {
namespace {

constexpr double kTolerance = 1e-5;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A small model of the paper's blocks.
NsaCase PaperCase(int64_t tokens, Phi phi, KvBranches branches, double rope_theta, uint64_t seed) {
  NsaCase c;
  c.tokens = tokens;
  c.heads = 4;
  c.groups = 2;
  c.key_width = 8;
  c.value_width = 6;
  c.nsa.phi = phi;
  c.nsa.phi_hidden = 5;
  c.nsa.kv_branches = branches;
  c.rope_theta = rope_theta;
  Randomize(c, seed);
  return c;
}

// One sequence of a case in a cache: its pages, how far it is.
class Decoded {
 public:
  // Pages are taken from `free`, from its end.
  Decoded(const NsaCase& c, int32_t number, std::vector<int32_t>* free)
      : nsa_case(c), values(c), sequence(number), out(c.tokens * OutRow(), kNan), selected(c.tokens * ChoiceRow(), -2) {
    for (int64_t page = 0; page < c.blocks(); ++page) {
      table.push_back(free->back());
      free->pop_back();
    }
  }

  void Prefill(Library& library, NSACache* cache, int64_t tokens) {
    NSAInputs inputs = values.call;
    inputs.tokens = tokens;
    std::vector<char> saved(nsa_saved_size(library.get(), tokens), '\xFF');
    const NSAOutputs outputs = {out.data(), saved.data(), selected.data()};
    EXPECT_NSA(nsa_prefill(library.get(), cache, sequence, &inputs, table.data(), &outputs, nullptr));
    length = tokens;
  }

  int64_t OutRow() const { return nsa_case.heads * nsa_case.value_width; }
  int64_t ChoiceRow() const { return nsa_case.groups * nsa_case.nsa.select; }
  int64_t left() const { return nsa_case.tokens - length; }

  const NsaCase& nsa_case;
  Values<float> values;
  int32_t sequence;
  int64_t length = 0;
  std::vector<int32_t> table;
  std::vector<float> out;
  std::vector<int32_t> selected;
};

// Decodes `counts[i]` tokens of sequence i in one step.
void Step(Library& library, NSACache* cache, const std::vector<Decoded*>& sequences,
          const std::vector<int32_t>& counts) {
  const NsaCase& c = sequences[0]->nsa_case;
  const int sets = c.nsa.kv_branches == KvBranches::kShared ? 1 : 3;
  std::vector<float> q, gates;
  std::array<std::vector<float>, 3> k, v;
  std::vector<int32_t> ids, table;
  std::vector<int64_t> lengths;
  int32_t width = 0, total = 0;
  for (const Decoded* s : sequences) width = std::max(width, static_cast<int32_t>(s->table.size()));
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Decoded& s = *sequences[i];
    const auto append = [&](std::vector<float>* to, const std::vector<float>& from, int64_t row) {
      to->insert(to->end(), from.begin() + s.length * row, from.begin() + (s.length + counts[i]) * row);
    };
    append(&q, s.values.q, c.heads * c.key_width);
    append(&gates, s.values.gates, c.heads * 3);
    for (int set = 0; set < sets; ++set) {
      append(&k[set], s.values.k[set], c.groups * c.key_width);
      append(&v[set], s.values.v[set], c.groups * c.value_width);
    }
    ids.push_back(s.sequence);
    lengths.push_back(s.length);
    // What lies behind a sequence's pages is not read.
    std::vector<int32_t> row = s.table;
    row.resize(CeilDiv(s.length + counts[i], c.nsa.select_block));
    row.resize(width, -7);
    table.insert(table.end(), row.begin(), row.end());
    total += counts[i];
  }
  const int64_t out_row = sequences[0]->OutRow(), choice_row = sequences[0]->ChoiceRow();
  std::vector<float> out(total * out_row, kNan);
  std::vector<int32_t> selected(total * choice_row, -2);
  NSADecodeStep step = {};
  step.num_sequences = static_cast<int32_t>(sequences.size());
  step.sequences = ids.data();
  step.lengths = lengths.data();
  step.new_tokens = counts.data();
  step.page_table = table.data();
  step.page_table_width = width;
  step.q = q.data();
  step.gates = gates.data();
  for (int set = 0; set < sets; ++set) {
    step.k[set] = k[set].data();
    step.v[set] = v[set].data();
  }
  step.out = out.data();
  step.selected = selected.data();
  ASSERT_NSA(nsa_decode(library.get(), cache, &step, nullptr));
  int64_t row = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    Decoded& s = *sequences[i];
    std::copy_n(out.begin() + row * out_row, counts[i] * out_row, s.out.begin() + s.length * out_row);
    std::copy_n(selected.begin() + row * choice_row, counts[i] * choice_row,
                s.selected.begin() + s.length * choice_row);
    s.length += counts[i];
    row += counts[i];
  }
}

std::vector<int32_t> ShuffledPages(int32_t count, uint64_t seed) {
  std::vector<int32_t> pages(count);
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937_64(seed));
  return pages;
}

// Every position's output by itself, as a whole would hide a single wrong one.
void ExpectTraining(Library& library, const Decoded& s) {
  const NsaCase& c = s.nsa_case;
  const auto expected = RunForward<float>(library, c, s.values.call);
  EXPECT_TRUE(BitEqual("selected", s.selected, expected.selected));
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto row = [&](const std::vector<float>& x) {
      return Array(x.begin() + t * s.OutRow(), x.begin() + (t + 1) * s.OutRow());
    };
    ASSERT_TRUE(RmsClose("out", row(s.out), row(expected.out), kTolerance)) << "at position " << t;
  }
}

struct Kind {
  Phi phi;
  KvBranches branches;
  double rope_theta;
};

class Decode : public testing::TestWithParam<Kind> {
 protected:
  NsaCase Case(int64_t tokens, uint64_t seed) const {
    return PaperCase(tokens, GetParam().phi, GetParam().branches, GetParam().rope_theta, seed);
  }
};

// All lengths from 1 to 4096: every edge of blocks, strides, windows, pages and rings.
TEST_P(Decode, TokenByTokenIsTheTrainingForward) {
  const NsaCase c = Case(4096, 11);
  Library library(c, NSA_FLOAT32);
  NSACache cache;
  ASSERT_NSA(nsa_cache_init(library.get(), &cache, 80));
  std::vector<int32_t> free = ShuffledPages(80, 1);
  Decoded sequence(c, 2, &free);
  while (sequence.left() > 0 && !HasFatalFailure()) Step(library, &cache, {&sequence}, {1});
  ExpectTraining(library, sequence);
  nsa_cache_free(&cache);
}

// A training forward of exactly that length, whose last compressed token and block may be cut short.
TEST_P(Decode, AtTheEdges) {
  const NsaCase whole = Case(1100, 12);
  Library library(whole, NSA_FLOAT32);
  const Values<float> values(whole);
  const auto all = RunForward<float>(library, whole, values.call);
  const int64_t row = whole.heads * whole.value_width, choices = whole.groups * whole.nsa.select;
  for (const int64_t tokens : {1,   2,   15,  16,  17,  31,  32,  33,  47,  48,   49,   63,   64,   65,   127, 128,
                               129, 511, 512, 513, 527, 528, 575, 576, 577, 1023, 1024, 1025, 1039, 1040, 1041}) {
    NSAInputs inputs = values.call;
    inputs.tokens = tokens;
    const auto found = RunForward<float>(library, whole, inputs);
    EXPECT_TRUE(BitEqual("selected", found.selected,
                         std::vector<int32_t>(all.selected.begin(), all.selected.begin() + tokens * choices)));
    EXPECT_TRUE(RmsClose("out", Doubles(found.out), Array(all.out.begin(), all.out.begin() + tokens * row), kTolerance))
        << tokens << " tokens";
  }
}

// Prefills that end at every edge, then single tokens and 16 at once; four sequences of different lengths in one batch.
TEST_P(Decode, BatchesAfterPrefill) {
  const std::vector<int64_t> prefills = {1, 31, 32, 47, 48, 63, 64, 65, 511, 512, 513, 527, 575, 640, 1000};
  NsaCase c = Case(1100, 13);
  Library library(c, NSA_FLOAT32);
  NSACache cache;
  ASSERT_NSA(nsa_cache_init(library.get(), &cache, 100));
  std::mt19937_64 random(5);
  for (size_t first = 0; first < prefills.size(); first += 3) {
    std::vector<int32_t> free = ShuffledPages(100, first);
    std::vector<NsaCase> cases(4, c);
    std::vector<std::unique_ptr<Decoded>> owned;
    std::vector<Decoded*> sequences;
    for (int32_t i = 0; i < 4; ++i) {
      // The fourth begins with its first step.
      const int64_t prefill = i < 3 ? prefills[first + i] : 0;
      cases[i].tokens = prefill + 70;
      const auto phi_k = c.in.phi_k, phi_v = c.in.phi_v;
      Randomize(cases[i], first + i);
      cases[i].in.phi_k = phi_k;
      cases[i].in.phi_v = phi_v;
      owned.push_back(std::make_unique<Decoded>(cases[i], 3 - i, &free));
      sequences.push_back(owned.back().get());
      if (prefill > 0) sequences.back()->Prefill(library, &cache, prefill);
    }
    while (!HasFatalFailure()) {
      std::vector<Decoded*> active;
      std::vector<int32_t> counts;
      for (Decoded* s : sequences) {
        if (s->left() == 0) continue;
        active.push_back(s);
        counts.push_back(static_cast<int32_t>(std::min<int64_t>(s->left(), random() % 3 == 0 ? 16 : 1 + random() % 5)));
      }
      if (active.empty()) break;
      std::rotate(active.begin(), active.begin() + 1, active.end());
      std::rotate(counts.begin(), counts.begin() + 1, counts.end());
      Step(library, &cache, active, counts);
    }
    for (const Decoded* s : sequences) ExpectTraining(library, *s);
    if (HasFailure()) break;
  }
  nsa_cache_free(&cache);
}

// Drafts of 16 tokens with wrong values, taken back again and again: what follows is as if they had never been.
TEST_P(Decode, TokensTakenBackLeaveNothing) {
  const NsaCase c = Case(700, 14), wrong = Case(700, 15);
  Library library(c, NSA_FLOAT32);
  NSACache cache;
  ASSERT_NSA(nsa_cache_init(library.get(), &cache, 11));
  std::vector<int32_t> free = ShuffledPages(11, 2), same;
  Decoded right(c, 0, &free);
  same = right.table;
  std::reverse(same.begin(), same.end());
  Decoded draft(wrong, 0, &same);
  while (right.left() > 0 && !HasFatalFailure()) {
    const auto count = static_cast<int32_t>(std::min<int64_t>(right.left(), 16));
    draft.length = right.length;
    Step(library, &cache, {&draft}, {count});
    Step(library, &cache, {&right}, {1 + static_cast<int32_t>(right.length % count)});
  }
  ExpectTraining(library, right);
  nsa_cache_free(&cache);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Decode,
                         testing::Values(Kind{Phi::kMlp, KvBranches::kSeparate, 100},
                                         Kind{Phi::kLinear, KvBranches::kSeparate, 0},
                                         Kind{Phi::kMean, KvBranches::kShared, 0},
                                         Kind{Phi::kMlp, KvBranches::kShared, 100}));

// Odd configurations: any l, d, b, window, groups.
TEST(DecodeRandomCases, AreTheTrainingForward) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    NsaCase c = RandomCase(seed);
    c.doc_start.clear();
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << Describe(c));
    Library library(c, NSA_FLOAT32);
    NSACache cache;
    const auto pages = static_cast<int32_t>(c.blocks() + 2);
    ASSERT_NSA(nsa_cache_init(library.get(), &cache, pages));
    std::vector<int32_t> free = ShuffledPages(pages, seed);
    Decoded sequence(c, 1, &free);
    if (seed % 2 == 0) sequence.Prefill(library, &cache, 1 + c.tokens / 3);
    for (int32_t i = 0; sequence.left() > 0 && !HasFatalFailure(); ++i) {
      Step(library, &cache, {&sequence}, {static_cast<int32_t>(std::min<int64_t>(sequence.left(), 1 + i * 5 % 16))});
    }
    ExpectTraining(library, sequence);
    nsa_cache_free(&cache);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace longspan::test

// `longspan attention` on case files: against the oracle, and over all ranks against one.
//
// On several ranks rank 0 writes the case, all run it together, and rank 0 runs it alone and compares.
#include "launch/commands/attention.h"

#include <gtest/gtest.h>

#include "kernels/ops.h"
#include "parallel/comm/local_comm.h"
#include "tests/launch/commands/attention_case_file.h"
#include "tests/support/files.h"
#include "tests/support/nsa_run.h"
#include "tests/support/oracle.h"

namespace longspan::test {
namespace {

AttentionOptions Options(const std::string& input, const std::string& output) {
  AttentionOptions options;
  options.input = input;
  options.output = output;
  return options;
}

void RunOnOneRank(const std::string& input, const std::string& output) {
  const auto device = MakeCpuDevice();
  RunAttentionCase(Options(input, output), *device, *MakeLocalCommunicator(*device));
}

SafetensorsFile RunAlone(const TempFolder& folder, const CaseFile& file) {
  file.Write(folder / "case");
  RunOnOneRank(folder / "case", folder / "alone");
  return SafetensorsFile::Open(folder / "alone");
}

std::vector<int32_t> Ints(const SafetensorsFile& file, const std::string& name) {
  const Tensor x = file.Get(name);
  return {x.As<int32_t>(), x.As<int32_t>() + x.size()};
}

void ExpectOutputs(const SafetensorsFile& found, const NsaOutputs& expected, double tolerance) {
  EXPECT_TRUE(RmsClose("out", Get(found, "out"), expected.out, tolerance));
  for (int b : {kCmp, kSlc, kWin}) {
    const std::string branch = kBranchNames[b];
    EXPECT_TRUE(RmsClose("o_" + branch, Get(found, "o_" + branch), expected.o[b], tolerance));
    EXPECT_TRUE(RmsClose("lse_" + branch, Get(found, "lse_" + branch), expected.lse[b], tolerance));
  }
}

class AttentionCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    world_ = MakeMpiWorld();
    // One folder for all ranks: rank 0's.
    std::string name = folder_ / "";
    name.resize(200);
    const auto device = MakeCpuDevice();
    const auto stream = device->MakeStream("test");
    const int64_t length = static_cast<int64_t>(name.size());
    world_->Broadcast(*stream, HostView(reinterpret_cast<uint8_t*>(name.data()), {length}), 0);
    stream->Synchronize();
    shared_ = name.c_str();
  }

  bool root() const { return world_->rank() == 0; }

  // All ranks together against rank 0 alone.
  void ExpectSame(const CaseFile& file, LayoutKind layout, SelectedExchange exchange, double tolerance) {
    if (root()) file.Write(shared_ + "case");
    world_->Barrier();
    AttentionOptions options = Options(shared_ + "case", shared_ + "together");
    options.layout = layout;
    options.selected_exchange = exchange;
    RunAttentionCase(options, *MakeCpuDevice(), *world_);
    if (!root()) return;
    const SafetensorsFile alone = RunAlone(folder_, file);
    const SafetensorsFile together = SafetensorsFile::Open(shared_ + "together");
    EXPECT_TRUE(SameForward(together, alone));
    ExpectGradients(together, alone, tolerance);
  }

  // One combination of layout and exchange, by turns.
  void ExpectSame(const CaseFile& file, uint64_t turn, double tolerance) {
    ExpectSame(file, turn % 2 == 0 ? LayoutKind::kHeadTail : LayoutKind::kContiguous,
               turn / 2 % 2 == 0 ? SelectedExchange::kGather : SelectedExchange::kFetch, tolerance);
  }

  TempFolder folder_;
  std::string shared_;  // rank 0's folder, with a slash
  std::unique_ptr<Communicator> world_;
};

// Long enough that every rank of eight has several blocks in each of two chunks.
NsaCase LongCase(Phi phi, KvBranches kv_branches, CompressRope compress_rope, double rope_theta) {
  NsaCase c;
  c.tokens = 451;
  c.heads = 4;
  c.groups = 2;
  c.key_width = 6;
  c.value_width = 5;
  c.nsa = {.block = 8, .stride = 4, .select_block = 8, .select = 5, .window = 37};
  c.nsa.phi = phi;
  c.nsa.kv_branches = kv_branches;
  c.nsa.compress_rope = compress_rope;
  c.rope_theta = rope_theta;
  c.doc_start = PackDocuments({150, 3, 97, 1, 179}, 8);
  c.tokens = static_cast<int64_t>(c.doc_start.size());
  Randomize(c, 7);
  return c;
}

TEST_F(AttentionCommand, EqualsTheOracle) {
  if (!root()) return;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    const NsaCase c = RandomCase(seed);
    SCOPED_TRACE(Describe(c));
    const SafetensorsFile found = RunAlone(folder_, CaseFile(c, DType::kF64));
    ExpectOutputs(found, Oracle(c), 1e-11);
    EXPECT_TRUE(BitEqual("selected", Ints(found, "selected"), Oracle(c).selected));

    // Frozen, in F32.
    CaseFile frozen(c, DType::kF32);
    const std::vector<int32_t> selected = Ints(found, "selected");
    frozen.Freeze(c, selected);
    ExpectOutputs(RunAlone(folder_, frozen), Oracle(c, &selected), 1e-5);
  }
}

TEST_F(AttentionCommand, GradientsEqualTheOperators) {
  if (!root()) return;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    const NsaCase c = RandomCase(seed);
    SCOPED_TRACE(Describe(c));
    const SafetensorsFile found = RunAlone(folder_, CaseFile(c, DType::kF64));
    NsaArrays expected = RunBoth(CpuMachine(DType::kF64), c).gradients;
    std::vector<const Array*> all;
    for (const auto& [name, values] : expected.Named()) all.push_back(values);
    const double floor = GradientFloor(all);
    const bool shared = c.nsa.kv_branches == KvBranches::kShared;
    size_t gradients = 0;
    for (const auto& [name, values] : expected.Named()) {
      const bool alone = shared && (name == "k_cmp" || name == "v_cmp");
      EXPECT_TRUE(RmsClose(name, Get(found, "d_" + (alone ? name.substr(0, 1) : name)), *values, 1e-11, floor));
      ++gradients;
    }
    EXPECT_EQ(std::count_if(found.names().begin(), found.names().end(), IsGradient), gradients);
  }
}

// A finite difference of the oracle along one direction in all inputs at once.
TEST_F(AttentionCommand, GradientsPredictTheOracle) {
  if (!root()) return;
  for (Phi phi : {Phi::kMlp, Phi::kLinear, Phi::kMean}) {
    NsaCase c = LongCase(phi, KvBranches::kSeparate, CompressRope::kAfter, 100);
    c.tokens = 90;
    c.doc_start = PackDocuments({50, 34}, 8);
    Randomize(c, 5);
    const std::vector<int32_t> selected = Oracle(c).selected;
    CaseFile file(c, DType::kF64);
    file.Freeze(c, selected);
    const SafetensorsFile found = RunAlone(folder_, file);
    NsaCase direction = c;
    Randomize(direction, 6);
    const auto loss = [&](double step) {
      NsaCase moved = c;
      const auto to = moved.in.Named(), along = direction.in.Named();
      for (size_t i = 0; i < to.size(); ++i) {
        for (size_t j = 0; j < to[i].second->size(); ++j) (*to[i].second)[j] += step * (*along[i].second)[j];
      }
      const Array out = Oracle(moved, &selected).out;
      double sum = 0;
      for (size_t i = 0; i < out.size(); ++i) sum += out[i] * c.d_out[i];
      return sum;
    };
    double predicted = 0;
    for (const auto& [name, along] : direction.in.Named()) {
      const Array gradient = Get(found, "d_" + name);
      for (size_t i = 0; i < gradient.size(); ++i) predicted += gradient[i] * (*along)[i];
    }
    const double h = 1e-4;
    const double measured = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);
    EXPECT_NEAR(measured / predicted, 1, 1e-6);
  }
}

TEST_F(AttentionCommand, DoesNotDependOnRanks) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    const NsaCase c = RandomCase(seed);
    SCOPED_TRACE(Describe(c));
    const DType dtypes[] = {DType::kF32, DType::kF64, DType::kBf16};
    const DType dtype = dtypes[seed % 3];
    ExpectSame(CaseFile(c, dtype), seed / 3, dtype == DType::kF64 ? 1e-11 : dtype == DType::kF32 ? 1e-5 : 5e-3);
  }
}

TEST_F(AttentionCommand, DoesNotDependOnLayoutAndExchange) {
  const NsaCase cases[] = {LongCase(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter, 100),
                           LongCase(Phi::kLinear, KvBranches::kSeparate, CompressRope::kBefore, 100),
                           LongCase(Phi::kMean, KvBranches::kShared, CompressRope::kAfter, 0),
                           LongCase(Phi::kMlp, KvBranches::kShared, CompressRope::kBefore, 0)};
  for (const NsaCase& c : cases) {
    SCOPED_TRACE(Describe(c));
    for (uint64_t turn = 0; turn < 4; ++turn) ExpectSame(CaseFile(c, DType::kF32), turn, 1e-5);
  }
}

TEST_F(AttentionCommand, DelayedStreamsChangeNothing) {
  SetCpuStreamMode(CpuStreamMode::kReorder, 3);
  const NsaCase c = LongCase(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter, 100);
  for (uint64_t turn = 0; turn < 4; ++turn) ExpectSame(CaseFile(c, DType::kF32), turn, 1e-5);
  SetCpuStreamMode(CpuStreamMode::kImmediate);
}

TEST_F(AttentionCommand, TakesAFrozenSelection) {
  const NsaCase c = LongCase(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter, 100);
  // The first and the last visible block, once each; nothing for every seventh token.
  std::vector<int32_t> selected(c.tokens * c.groups * c.nsa.select, -1);
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto first = static_cast<int32_t>(c.DocStart(t) / c.nsa.select_block);
    const auto last = static_cast<int32_t>(t / c.nsa.select_block);
    for (int64_t g = 0; g < c.groups && t % 7 != 0; ++g) {
      int32_t* row = selected.data() + (t * c.groups + g) * c.nsa.select;
      row[0] = first;
      if (last > first) row[1] = last;
    }
  }
  CaseFile file(c, DType::kF64);
  file.Freeze(c, selected);
  for (uint64_t turn = 0; turn < 4; ++turn) ExpectSame(file, turn, 1e-11);
  if (!root()) return;
  const SafetensorsFile found = RunAlone(folder_, file);
  EXPECT_TRUE(BitEqual("selected", Ints(found, "selected"), selected));
  ExpectOutputs(found, Oracle(c, &selected), 1e-11);
}

TEST_F(AttentionCommand, TakesTheShortestSequences) {
  for (int64_t tokens : {1, 2, 3, 4, 7, 8, 9, 17}) {
    NsaCase c = LongCase(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter, 100);
    c.tokens = tokens;
    c.doc_start.clear();
    Randomize(c, 11);
    SCOPED_TRACE(Describe(c));
    for (uint64_t turn = 0; turn < 4; ++turn) ExpectSame(CaseFile(c, DType::kF32), turn, 1e-5);
    if (root()) ExpectOutputs(RunAlone(folder_, CaseFile(c, DType::kF32)), Oracle(c), 1e-5);
  }
}

TEST_F(AttentionCommand, WritesWhatTheCaseAsksFor) {
  const NsaCase c = LongCase(Phi::kMean, KvBranches::kShared, CompressRope::kAfter, 0);
  CaseFile file(c, DType::kBf16);
  file.metadata["format"] = "pt";
  if (!root()) return;
  const std::vector<std::string> forward = {"lse_cmp", "lse_slc", "lse_win", "o_cmp",
                                            "o_slc",   "o_win",   "out",     "selected"};
  std::vector<std::string> all = forward;
  all.insert(all.begin(), {"d_gates", "d_k", "d_q", "d_v"});
  const SafetensorsFile found = RunAlone(folder_, file);
  EXPECT_EQ(found.names(), all);
  EXPECT_EQ(found.Get("out").dtype, DType::kBf16);
  EXPECT_EQ(found.Get("d_k").dtype, DType::kBf16);
  EXPECT_EQ(found.Get("d_k").shape, (Shape{c.tokens, c.groups, c.key_width}));
  EXPECT_EQ(found.Get("lse_win").dtype, DType::kF32);
  EXPECT_EQ(found.Get("lse_win").shape, (Shape{c.tokens, c.heads}));
  EXPECT_EQ(found.Get("selected").shape, (Shape{c.tokens, c.groups, c.nsa.select}));

  file.tensors.erase("d_out");
  EXPECT_EQ(RunAlone(folder_, file).names(), forward);
}

// Rounding to the nearest BF16 leaves an RMS error of 1.5e-3, dropping bits twice that.
TEST_F(AttentionCommand, RoundsBf16ToTheNearest) {
  if (!root()) return;
  const NsaCase c = LongCase(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter, 100);
  CaseFile file(c, DType::kBf16);
  file.Freeze(c, Ints(RunAlone(folder_, file), "selected"));
  const SafetensorsFile narrow = RunAlone(folder_, file);
  for (auto& [name, entry] : file.tensors) {
    if (entry.dtype != DType::kBf16) continue;
    std::vector<std::byte> bytes = Encode(entry.values, DType::kBf16);
    entry.values = Decode(Tensor(bytes.data(), DType::kBf16, DeviceKind::kCpu, entry.shape));
    entry.dtype = DType::kF64;
  }
  std::filesystem::rename(folder_ / "alone", folder_ / "narrow");  // stays mapped
  const SafetensorsFile wide = RunAlone(folder_, file);
  ExpectGradients(narrow, wide, 2e-3);
  for (const char* name : {"out", "o_cmp", "o_slc", "o_win"}) {
    EXPECT_TRUE(RmsClose(name, Get(narrow, name), Get(wide, name), 2e-3));
  }
  for (const char* name : {"lse_cmp", "lse_slc", "lse_win"}) {
    EXPECT_TRUE(RmsClose(name, Get(narrow, name), Get(wide, name), 1e-6));
  }
}

TEST_F(AttentionCommand, AbsentGatesAreOnes) {
  if (!root()) return;
  NsaCase c = LongCase(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter, 100);
  std::fill(c.in.gates.begin(), c.in.gates.end(), 1.0);
  CaseFile file(c, DType::kF32);
  const Array with = Get(RunAlone(folder_, file), "out");
  file.tensors.erase("gates");
  const SafetensorsFile without = RunAlone(folder_, file);
  EXPECT_TRUE(BitEqual("out", Get(without, "out"), with));
  EXPECT_FALSE(without.Has("d_gates"));
  EXPECT_TRUE(without.Has("d_q"));
}

TEST_F(AttentionCommand, ScaleIsATemperature) {
  if (!root()) return;
  NsaCase c = LongCase(Phi::kMean, KvBranches::kSeparate, CompressRope::kAfter, 0);
  c.scale = 0.125;
  CaseFile file(c, DType::kF64);
  file.metadata["scale"] = "0.125";
  ExpectOutputs(RunAlone(folder_, file), Oracle(c), 1e-11);
}

// Keys that were rotated before their compression are not rotated again.
TEST_F(AttentionCommand, RopeThetaIsForAfterOnly) {
  if (!root()) return;
  const NsaCase c = LongCase(Phi::kLinear, KvBranches::kSeparate, CompressRope::kBefore, 100);
  ExpectOutputs(RunAlone(folder_, CaseFile(c, DType::kF64)), Oracle(c), 1e-11);
}

class AttentionErrors : public AttentionCommand {
 protected:
  void SetUp() override {
    AttentionCommand::SetUp();
    if (!root()) GTEST_SKIP() << "one rank tells";
  }

  using Change = std::function<void(CaseFile&)>;
  void Expect(std::initializer_list<std::string> parts, const Change& change) {
    CaseFile file(case_, DType::kF32);
    change(file);
    ExpectError(ExitCode::kData, parts, [&] { RunAlone(folder_, file); });
    EXPECT_FALSE(std::filesystem::exists(folder_ / "alone"));
  }

  static void Resize(CaseFile& file, const std::string& name, const Shape& shape) {
    CaseFile::Entry& entry = file.tensors.at(name);
    entry.shape = shape;
    entry.values.resize(shape.count());
  }

  NsaCase case_ = LongCase(Phi::kMlp, KvBranches::kSeparate, CompressRope::kAfter, 100);
};

TEST_F(AttentionErrors, Tensors) {
  for (const char* name : {"q", "k_cmp", "v_cmp", "k_slc", "v_win", "phi_k.position", "phi_k.weight1", "phi_v.bias2"}) {
    Expect({"case", fmt::format("expected a tensor \"{}\"", name)}, [&](CaseFile& file) { file.tensors.erase(name); });
  }
  const int64_t tokens = case_.tokens;
  const auto resized = [&](const std::string& name, const Shape& shape, const std::string& expected) {
    Expect({name, "expected " + expected, "found"}, [&](CaseFile& file) { Resize(file, name, shape); });
  };
  resized("q", {0, 4, 6}, "[S,H,K]");
  resized("q", {tokens, 24}, "[S,H,K]");
  resized("q", {tokens, 4, 7}, "an even K");
  resized("k_cmp", {tokens, 3, 6}, "groups that divide the 4 heads");
  resized("k_cmp", {tokens, 2, 8}, fmt::format("F32 [{},2,6]", tokens));
  resized("k_slc", {tokens - 1, 2, 6}, fmt::format("F32 [{},2,6]", tokens));
  resized("v_win", {tokens, 2, 6}, fmt::format("F32 [{},2,5]", tokens));
  resized("gates", {tokens, 4, 2}, fmt::format("F32 [{},4,3]", tokens));
  resized("d_out", {tokens, 4, 6}, fmt::format("F32 [{},4,5]", tokens));
  resized("doc_start", {tokens - 8}, fmt::format("I32 [{}]", tokens));
  resized("phi_k.weight1", {8 * 5, 12}, "F32 [48,12]");
  resized("phi_v.bias1", {11}, "F32 [10]");
  Expect({"gates", "expected F32", "found F64", "the type of q"},
         [](CaseFile& file) { file.tensors.at("gates").dtype = DType::kF64; });
  Expect({"gates", "with d_out expected 0 or more", "found -0.5"},
         [](CaseFile& file) { file.tensors.at("gates").values[7] = -0.5; });
  Expect({"q", "expected F32, F64 or BF16, found I32"},
         [](CaseFile& file) { file.tensors.at("q").dtype = DType::kI32; });
  Expect({"doc_start", "expected I32", "found F32"},
         [](CaseFile& file) { file.tensors.at("doc_start").dtype = DType::kF32; });
}

TEST_F(AttentionErrors, NamesThatDoNotBelong) {
  const auto rename = [](const std::string& from, const std::string& to) {
    return [=](CaseFile& file) {
      file.tensors[to] = file.tensors.at(from);
      file.tensors.erase(from);
    };
  };
  Expect({"gate:", "nearest", "gates"}, rename("gates", "gate"));
  Expect({"phi_k.weight:", "phi = MLP", "another phi"},
         [](CaseFile& file) { file.tensors["phi_k.weight"] = file.tensors.at("phi_k.weight1"); });
  Expect({"phi_k.bias2", "phi = MEAN", "another phi"}, [](CaseFile& file) {
    file.metadata["phi"] = "MEAN";
    file.tensors.erase("phi_k.bias1");
  });
  Expect({"expected a tensor \"phi_k.weight\""}, [](CaseFile& file) {
    file.metadata["phi"] = "LINEAR";
    Resize(file, "phi_k.position", {2, 8, 6});
  });
  Expect({"k and k_cmp disagree", "k_cmp, k_slc, k_win"},
         [](CaseFile& file) { file.tensors["k"] = file.tensors.at("k_cmp"); });
  Expect({"rope_theta = 100", "AFTER disagree"}, [&](CaseFile& file) {
    for (const char* name : {"k", "v"}) {
      rename(fmt::format("{}_cmp", name), name)(file);
      file.tensors.erase(fmt::format("{}_slc", name));
      file.tensors.erase(fmt::format("{}_win", name));
    }
  });
}

TEST_F(AttentionErrors, Metadata) {
  const auto set = [](const std::string& key, const std::string& value) {
    return [=](CaseFile& file) { file.metadata[key] = value; };
  };
  Expect({"metadata", "\"blocks\"", "nearest is block"}, set("blocks", "8"));
  for (const char* value : {"", " 8", "8 ", "8.0", "eight", "0x8", "99999999999999999999"}) {
    Expect({"metadata: block", "a whole number", fmt::format("\"{}\"", value)}, set("block", value));
  }
  Expect({"metadata", "block = 0"}, set("block", "0"));
  Expect({"stride = 3 and block = 8 disagree"}, set("stride", "3"));
  Expect({"block = 16 and select_block = 8 disagree"}, set("block", "16"));
  Expect({"select = 2 and init + local = 3 disagree"}, set("select", "2"));
  Expect({"window = 0"}, set("window", "0"));
  Expect({"phi", "LINEAR or MEAN or MLP", "\"mlp\""}, set("phi", "mlp"));
  Expect({"compress_rope", "AFTER or BEFORE"}, set("compress_rope", "NEVER"));
  for (const char* value : {"nan", "inf", "-1", "1e999", "10000x"}) {
    Expect({"rope_theta", "finite number above 1"}, set("rope_theta", value));
    Expect({"scale", "finite number above 0"}, set("scale", value));
  }
}

TEST_F(AttentionErrors, DocumentsAndSelection) {
  const auto start = [](size_t t, int32_t value) {
    return [=](CaseFile& file) { file.tensors.at("doc_start").values[t] = value; };
  };
  Expect({"doc_start[0] = 8"}, start(0, 8));
  Expect({"doc_start[100] = 4", "multiples of 8"}, start(100, 4));
  Expect({"doc_start[200] = -8"}, start(200, -8));

  // Token 170 is in block 21; its document begins at block 20.
  const int64_t row = 170 * case_.groups;
  const auto choose = [&](const std::vector<int32_t>& blocks) {
    return [this, row, blocks](CaseFile& file) {
      std::vector<int32_t> selected(case_.tokens * case_.groups * case_.nsa.select, -1);
      std::copy(blocks.begin(), blocks.end(), selected.begin() + row * case_.nsa.select);
      file.Freeze(case_, selected);
    };
  };
  ASSERT_EQ(case_.DocStart(170), 160);
  Expect({"selected[170,0,0] = 19", "20 to 21"}, choose({19}));
  Expect({"selected[170,0,0] = 22", "20 to 21"}, choose({22}));
  Expect({"selected[170,0,0] = -2"}, choose({-2}));
  Expect({"selected[170,0,1] = 20", "ascending"}, choose({21, 20}));
  Expect({"selected[170,0,1] = 20", "ascending"}, choose({20, 20}));
  Expect({"selected[170,0,1] = 20", "then -1"}, choose({-1, 20}));
  Expect({"selected", "expected I32"}, [&](CaseFile& file) {
    choose({20})(file);
    Resize(file, "selected", {case_.tokens, case_.groups, 4});
  });
}

TEST_F(AttentionErrors, Files) {
  ExpectError(ExitCode::kIo, {"nowhere"}, [&] { RunOnOneRank(folder_ / "nowhere", folder_ / "alone"); });
  CaseFile(case_, DType::kF32).Write(folder_ / "case");
  ExpectError(ExitCode::kIo, {"no/such/folder"},
              [&] { RunOnOneRank(folder_ / "case", folder_ / "no/such/folder/out"); });
}

}  // namespace
}  // namespace longspan::test

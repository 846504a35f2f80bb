// The whole NSA operator on one device through the seam kernels/ops.h, in the order of DESIGN.md section 2:
// compress, rotate the compressed keys, compressed branch, select, selected branch, window branch, combine; and back.
//
// Every output starts as NaN, and so does every key row that the placement leaves unused.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/ops.h"
#include "tests/support/machine.h"
#include "tests/support/nsa_case.h"

namespace longspan::test {

// Where things lie. The default: all queries in order, key rows in order in one page.
struct Placement {
  std::vector<Segment> segments = {};  // of the queries; empty = the whole sequence. Need not cover it
  int64_t page_tokens = 0;             // of the key rows, a multiple of b; 0 = one page
  std::vector<int32_t> table = {};     // page -> slot of key rows (token rows and compressed rows alike)
};

class NsaOperator {
 public:
  NsaOperator(const Machine& machine, const NsaCase& c, const Placement& placement = {});

  // With `selected` ([S,G,n]) the choice is given and Select is not run.
  void Forward(const std::vector<int32_t>* selected = nullptr);
  // Makes the gradients, with this value everywhere; before each Backward.
  void StartGradients(double value = 0);
  // Adds the gradients of sum(d_out * out) over this placement's queries, after a Forward.
  void Backward();

  // In the order of the sequence; queries that no segment holds are NaN (selected: -2), their gradients 0.
  NsaOutputs Outputs() const;
  NsaArrays Gradients() const;

 private:
  using PhiTensors = PhiSet<OwnedTensor>;
  struct Tensors {  // inputs or gradients
    OwnedTensor q;
    std::array<OwnedTensor, 3> k, v;  // SHARED: only the first
    OwnedTensor gates;
    PhiTensors phi_k, phi_v;
  };
  // Sequence row i (a token or a compressed token) lies in row at[i] of a buffer of `count` rows; -1 = nowhere.
  struct RowMap {
    std::vector<int64_t> at;
    int64_t count = 0;
  };

  void PlaceRows(const Placement& placement);
  Tensors UploadInputs();
  OwnedTensor Make(const std::string& name, const Shape& shape) const;
  OwnedTensor Filled(const std::string& name, const Shape& shape, double value) const;
  // Rows of the sequence into a buffer's rows (the others NaN), and back.
  OwnedTensor Scatter(const std::string& name, const Array& values, const RowMap& rows, int64_t heads,
                      int64_t width) const;
  Array Gather(const OwnedTensor& tensor, const RowMap& rows, double missing) const;

  int Slot(int branch) const { return case_.nsa.kv_branches == KvBranches::kShared ? 0 : branch; }
  CompressArgs Compression(bool key) const;
  BranchArgs BranchOf(int branch) const;
  CompressedArgs CompressedBranch() const;
  SelectedArgs SelectedBranch() const;
  WindowArgs WindowBranch() const;
  CombineArgs Combination() const;
  void RotateSummaries(const Tensor& x, bool inverse) const;

  Machine machine_;
  NsaCase case_;
  bool frozen_ = false;
  std::vector<Segment> query_segments_, key_segments_;  // a key segment is a page
  RowMap queries_, keys_, summaries_;
  int64_t page_tokens_ = 0, page_summaries_ = 0;

  OwnedTensor doc_start_, table_, positions_, frequency_;
  Tensors in_, gradient_;
  OwnedTensor k_cmp_, v_cmp_, d_k_cmp_, d_v_cmp_, selected_, scores_, out_, d_out_;
  std::array<OwnedTensor, 3> o_, lse_;
};

struct NsaResult {
  NsaOutputs outputs;
  NsaArrays gradients;
};

NsaOutputs RunForward(const Machine& machine, const NsaCase& c, const std::vector<int32_t>* selected = nullptr);
NsaResult RunBoth(const Machine& machine, const NsaCase& c, const std::vector<int32_t>* selected = nullptr,
                  const Placement& placement = {});

}  // namespace longspan::test

// How the bits of a row are kept from depending on the number of rows: for products whose sum does not run over the
// rows (transpose_a false) the algorithm is the one that cuBLASLt's heuristic takes for kPanelRows rows, without
// splits of the sum, whatever m is. Where that algorithm refuses m, the heuristic is asked for m itself.
//
// Row-major through transposition: our c = a b is, read column-major, c^T = b^T a^T.
#include "kernels/matmul/matmul_gpu.h"

#include <cublasLt.h>

#include <algorithm>

#include "kernels/matmul/workspace.h"

namespace longspan {
namespace {

constexpr int64_t kPanelRows = 8192;

void LtCheck(cublasStatus_t status, const char* what, int line = __builtin_LINE()) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  ThrowError(ExitCode::kRankFailed, __FILE__, line,
             fmt::format("{}: cuBLASLt: {}", what, cublasLtGetStatusString(status)));
}

cudaDataType_t CudaType(DType dtype) { return dtype == DType::kBf16 ? CUDA_R_16BF : CUDA_R_32F; }

// One of cuBLASLt's descriptors, with its destroyer.
template <typename Handle, cublasStatus_t (*destroy)(Handle)>
struct Owned {
  Handle handle = nullptr;
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle) destroy(handle);
  }
};
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

void MakeLayout(Layout& layout, DType dtype, int64_t rows, int64_t columns) {
  LtCheck(cublasLtMatrixLayoutCreate(&layout.handle, CudaType(dtype), rows, columns, rows), "matrix layout");
}

// The alignment that may be promised for an address: 16 or the element's.
uint32_t Alignment(const void* data, DType dtype) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 ? 16 : static_cast<uint32_t>(DTypeSize(dtype));
}

}  // namespace

struct MatMulGpu::Library : Owned<cublasLtHandle_t, cublasLtDestroy> {};

struct MatMulGpu::Plan {
  Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> operation;
  Layout left, right, result;  // cuBLASLt's operands: left is our b, right our a
  cublasLtMatmulAlgo_t algorithm;

  void Describe(const MatMulShape& s) {
    LtCheck(cublasLtMatmulDescCreate(&operation.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
    const cublasOperation_t left_op = s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right_op = s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    LtCheck(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSA, &left_op, sizeof left_op),
            "transposition of b");
    LtCheck(cublasLtMatmulDescSetAttribute(operation.handle, CUBLASLT_MATMUL_DESC_TRANSB, &right_op, sizeof right_op),
            "transposition of a");
    MakeLayout(left, s.operands, s.transpose_b ? s.k : s.n, s.transpose_b ? s.n : s.k);
    MakeLayout(right, s.operands, s.transpose_a ? s.m : s.k, s.transpose_a ? s.k : s.m);
    MakeLayout(result, s.result, s.n, s.m);
  }

  // False when there is none. `splits` is of cublasLtReductionScheme_t: how a sum may be split.
  bool Choose(cublasLtHandle_t library, const MatMulShape& s, uint32_t splits) {
    Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
    LtCheck(cublasLtMatmulPreferenceCreate(&preference.handle), "preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      LtCheck(cublasLtMatmulPreferenceSetAttribute(preference.handle, attribute, &value, sizeof value), "preference");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kMatMulWorkspaceBytes));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s.align_b);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s.align_a);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s.align_c);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s.align_c);
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, splits);
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(library, operation.handle, left.handle, right.handle, result.handle,
                                       result.handle, preference.handle, 1, &found, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || count == 0) return false;
    LtCheck(status, "choice of an algorithm");
    algorithm = found.algo;
    return true;
  }

  bool Accepts(cublasLtHandle_t library, const cublasLtMatmulAlgo_t& candidate) const {
    cublasLtMatmulHeuristicResult_t answer;
    return cublasLtMatmulAlgoCheck(library, operation.handle, left.handle, right.handle, result.handle, result.handle,
                                   &candidate, &answer) == CUBLAS_STATUS_SUCCESS &&
           answer.workspaceSize <= static_cast<size_t>(kMatMulWorkspaceBytes);
  }
};

MatMulGpu::MatMulGpu(const std::string& what) : workspace_(what) {}

MatMulGpu::~MatMulGpu() = default;

const MatMulGpu::Plan& MatMulGpu::PlanOf(const MatMulShape& shape) {
  std::unique_ptr<Plan>& plan = plans_[shape];
  if (plan) return *plan;
  if (!library_) {
    library_ = std::make_unique<Library>();
    LtCheck(cublasLtCreate(&library_->handle), "cuBLASLt");
  }
  auto made = std::make_unique<Plan>();
  made->Describe(shape);
  bool chosen = false;
  if (!shape.transpose_a) {
    MatMulShape panel = shape;
    panel.m = kPanelRows;
    Plan canonical;
    canonical.Describe(panel);
    chosen = canonical.Choose(library_->handle, panel, CUBLASLT_REDUCTION_SCHEME_NONE) &&
             made->Accepts(library_->handle, canonical.algorithm);
    if (chosen) made->algorithm = canonical.algorithm;
  }
  if (!chosen) chosen = made->Choose(library_->handle, shape, CUBLASLT_REDUCTION_SCHEME_MASK);
  LS_CHECK(chosen, "matrix product [{},{}]x[{},{}] of {} to {}: cuBLASLt knows no algorithm", shape.m, shape.k, shape.k,
           shape.n, DTypeName(shape.operands), DTypeName(shape.result));
  plan = std::move(made);
  return *plan;
}

void MatMulGpu::Run(Stream& stream, MatMulShape shape, const void* a, const void* b, void* c, const void* add) {
  if (shape.m == 0 || shape.n == 0) return;
  const cudaStream_t cuda = CudaStream(stream);
  if (!add) add = c;
  if (shape.k == 0) {
    const int64_t bytes = shape.m * shape.n * DTypeSize(shape.result);
    if (!shape.accumulate) {
      CudaCheck(cudaMemsetAsync(c, 0, bytes, cuda), "matrix product");
    } else if (add != c) {
      CudaCheck(cudaMemcpyAsync(c, add, bytes, cudaMemcpyDeviceToDevice, cuda), "matrix product");
    }
    return;
  }
  shape.align_a = Alignment(a, shape.operands);
  shape.align_b = Alignment(b, shape.operands);
  shape.align_c = std::min(Alignment(c, shape.result), Alignment(add, shape.result));
  const Plan& plan = PlanOf(shape);
  const float alpha = 1, beta = shape.accumulate ? 1 : 0;
  LtCheck(cublasLtMatmul(library_->handle, plan.operation.handle, &alpha, b, plan.left.handle, a, plan.right.handle,
                         &beta, add, plan.result.handle, c, plan.result.handle, &plan.algorithm,
                         workspace_.Get(stream, kMatMulWorkspaceBytes), kMatMulWorkspaceBytes, cuda),
          "matrix product");
}

}  // namespace longspan

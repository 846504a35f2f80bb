// GPU device and its streams, on the CUDA runtime. Streams do not wait for the legacy default stream. A host task runs
// on a thread of CUDA's, in stream order; it must not call CUDA. Its exception is kept, host tasks after it are
// skipped, and Synchronize rethrows it.
#include <atomic>
#include <cctype>
#include <exception>
#include <mutex>

#include "runtime/foreign_stream.h"
#include "runtime/gpu.h"
#include "runtime/memory.h"

namespace longspan {
namespace {

double GiB(size_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

class GpuEvent : public Event {
 public:
  // Of that GPU, which is the current one.
  explicit GpuEvent(int index) : index_(index) {
    CudaCheck(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event");
  }
  ~GpuEvent() override { cudaEventDestroy(event_); }
  int index() const { return index_; }
  cudaEvent_t event() const { return event_; }

 private:
  const int index_;
  cudaEvent_t event_ = nullptr;
};

// The first failure of a stream's host tasks.
struct Failure {
  std::mutex mutex;
  std::exception_ptr first;
};

struct HostTask {
  std::function<void()> work;
  Failure* failure;
};

void CUDART_CB RunHostTask(void* data) {
  const std::unique_ptr<HostTask> task(static_cast<HostTask*>(data));
  {
    const std::lock_guard lock(task->failure->mutex);
    if (task->failure->first) return;
  }
  try {
    task->work();
  } catch (...) {
    const std::lock_guard lock(task->failure->mutex);
    task->failure->first = std::current_exception();
  }
}

class GpuTimer : public Timer {
 public:
  GpuTimer() {
    for (cudaEvent_t* event : {&begin_, &end_}) CudaCheck(cudaEventCreate(event), "making a timing event");
  }
  ~GpuTimer() override {
    for (const cudaEvent_t event : {begin_, end_}) cudaEventDestroy(event);
  }
  void Start(Stream& stream) override { CudaCheck(cudaEventRecord(begin_, CudaStream(stream)), "starting a timer"); }
  void Stop(Stream& stream) override { CudaCheck(cudaEventRecord(end_, CudaStream(stream)), "stopping a timer"); }
  double Seconds() override {
    float milliseconds = 0;
    CudaCheck(cudaEventSynchronize(end_), "waiting for a timer");
    CudaCheck(cudaEventElapsedTime(&milliseconds, begin_, end_), "reading a timer");
    return milliseconds * 1e-3;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class GpuStream : public Stream {
 public:
  GpuStream(int device, std::string name) : device_(device), name_(std::move(name)) {
    CudaCheck(cudaSetDevice(device_), "choosing the GPU");
    CudaCheck(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    CudaCheck(cudaHostAlloc(reinterpret_cast<void**>(&faults_), sizeof(GpuFaults), cudaHostAllocMapped),
              "allocating a stream's fault record");
    *faults_ = {};
  }
  ~GpuStream() override {
    cudaStreamSynchronize(stream_);  // host tasks refer to failure_
    cudaStreamDestroy(stream_);
    cudaFreeHost(faults_);
  }
  DeviceKind kind() const override { return DeviceKind::kGpu; }
  Lane lane() const override {
    return name_ == "compute" ? Lane::kCompute : name_ == "comm" ? Lane::kComm : Lane::kBeside;
  }

  void Enqueue(std::function<void()> task) override {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    CudaCheck(cudaStreamIsCapturing(Use(), &capture), "enqueuing a host task");
    LS_CHECK(capture == cudaStreamCaptureStatusNone, "stream {}: a host task runs once: it cannot be part of a graph",
             name_);
    auto host = std::make_unique<HostTask>(HostTask{std::move(task), &failure_});
    CudaCheck(cudaLaunchHostFunc(Use(), RunHostTask, host.get()), "enqueuing a host task");
    host.release();
  }
  void Record(Event& event) override {
    CudaCheck(cudaEventRecord(static_cast<GpuEvent&>(event).event(), Use()), "recording an event");
  }
  void Wait(const Event& event, const char* stall) override {
    const auto wait = [&](cudaStream_t cuda) {
      CudaCheck(cudaStreamWaitEvent(cuda, static_cast<const GpuEvent&>(event).event(), 0), "waiting for an event");
    };
    if (stall) {
      LaunchGpu(*this, stall, {}, wait);
    } else {
      wait(Use());
    }
  }
  void Synchronize() override {
    CudaCheck(cudaStreamSynchronize(Use()), fmt::format("waiting for stream {}", name_).c_str());
    std::exception_ptr failure;
    {
      const std::lock_guard lock(failure_.mutex);
      failure = std::exchange(failure_.first, nullptr);
    }
    if (failure) std::rethrow_exception(failure);
    ThrowFaults();
  }

  // The stream, with its device made current.
  cudaStream_t Use() {
    CudaCheck(cudaSetDevice(device_), "choosing the GPU");
    return stream_;
  }
  GpuFaults* faults() { return faults_; }

 private:
  void ThrowFaults() {
    for (int kind = 0; kind < GpuFaults::kKinds; ++kind) {
      const unsigned long long found = std::exchange(faults_->found[kind], 0ULL);
      if (found == 0) continue;
      constexpr const char* kWhat[] = {"token", "target", "index"};
      Fail(ExitCode::kData, "{} {} at position {} of this rank's tokens or rows: expected a value in [{},{})",
           kWhat[kind], static_cast<int32_t>(found & 0xFFFFFFFF), found << 1 >> 33,
           kind == static_cast<int>(GpuFault::kTarget) ? -1 : 0, faults_->limit[kind]);
    }
  }

  int device_;
  std::string name_;
  cudaStream_t stream_ = nullptr;
  GpuFaults* faults_ = nullptr;
  Failure failure_;
};

class GpuGraph : public Graph {
 public:
  GpuGraph(Stream& stream, cudaGraph_t graph) : stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    CudaCheck(status, "making a graph executable");
  }
  ~GpuGraph() override { cudaGraphExecDestroy(executable_); }
  void Launch() override {
    LaunchGpu(stream_, "graph", {},
              [&](cudaStream_t cuda) { CudaCheck(cudaGraphLaunch(executable_, cuda), "launching a graph"); });
  }

 private:
  Stream& stream_;
  cudaGraphExec_t executable_ = nullptr;
};

class GpuDevice : public Device {
 public:
  explicit GpuDevice(int index) : index_(index) {
    const int count = GpuCount();
    if (index < 0 || index >= count) {
      Fail(ExitCode::kConfig, "device gpu: expected one of the {} GPUs that this process sees, found number {}", count,
           index);
    }
    CudaCheck(cudaSetDevice(index_), "choosing the GPU");
    CudaCheck(cudaGetDeviceProperties(&properties_, index_), "asking for the GPU's properties");
  }
  DeviceKind kind() const override { return DeviceKind::kGpu; }
  std::string name() const override {
    return fmt::format("{} ({:.1f} GiB)", properties_.name, GiB(properties_.totalGlobalMem));
  }
  std::string address() const override { return GpuAddress(index_); }
  std::unique_ptr<Stream> MakeStream(const std::string& name) override {
    return std::make_unique<GpuStream>(index_, name);
  }
  std::unique_ptr<Event> MakeEvent() override {
    CudaCheck(cudaSetDevice(index_), "choosing the GPU");
    return std::make_unique<GpuEvent>(index_);
  }
  std::unique_ptr<Timer> MakeTimer() override {
    CudaCheck(cudaSetDevice(index_), "choosing the GPU");
    return std::make_unique<GpuTimer>();
  }
  void CompareClocks(Stream& stream) override { CompareGpuClock(CudaStream(stream), index_); }

  void* Allocate(int64_t bytes, const std::string& what) override {
    CudaCheck(cudaSetDevice(index_), "choosing the GPU");
    void* data = nullptr;
    CountAllocation();
    const cudaError_t status = cudaMalloc(&data, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // allocation errors do not stick
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      FailForMemory(
          "out of GPU memory: {} needs {} bytes ({:.2f} GiB); GPU {} has {:.2f} GiB free of {:.2f}. Shorten the "
          "sequence, split it over more ranks (cp), recompute more activations, or end other programs on this GPU",
          what, bytes, GiB(bytes), index_, GiB(free), GiB(total));
    }
    CudaCheck(status, what.c_str());
    return data;
  }
  void Free(void* data) noexcept override { cudaFree(data); }
  int64_t AvailableBytes() const override {
    CudaCheck(cudaSetDevice(index_), "choosing the GPU");
    size_t free = 0, total = 0;
    CudaCheck(cudaMemGetInfo(&free, &total), "asking for free memory");
    return static_cast<int64_t>(free);
  }
  void* AllocateHost(int64_t bytes, const std::string& what) override {
    CudaCheck(cudaSetDevice(index_), "choosing the GPU");
    void* data = nullptr;
    CountAllocation();
    const cudaError_t status =
        cudaHostAlloc(&data, static_cast<size_t>(std::max<int64_t>(bytes, 1)), cudaHostAllocDefault);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      FailForMemory("out of page-locked host memory: {} needs {} bytes ({:.2f} GiB)", what, bytes, GiB(bytes));
    }
    CudaCheck(status, what.c_str());
    return data;
  }
  void FreeHost(void* data) noexcept override { cudaFreeHost(data); }

  // A copy from or to pageable host memory may wait for the stream.
  void Copy(Stream& stream, Tensor to, Tensor from) override {
    LS_CHECK(to.dtype == from.dtype && to.size() == from.size() && to.contiguous() && from.contiguous(),
             "copy of {} {} to {} {}: sizes, dtypes and contiguity must agree", DTypeName(from.dtype),
             from.shape.ToString(), DTypeName(to.dtype), to.shape.ToString());
    if (to.size() == 0) return;
    LaunchGpu(stream, "memory.copy", {0, static_cast<double>(to.bytes())}, [&](cudaStream_t cuda) {
      CudaCheck(cudaMemcpyAsync(to.data, from.data, to.bytes(), cudaMemcpyDefault, cuda), "memory.copy");
    });
  }
  void FillBytes(Stream& stream, Tensor tensor, uint8_t value) override {
    LS_CHECK(tensor.contiguous(), "fill of a tensor {} that is not contiguous", tensor.shape.ToString());
    if (tensor.size() == 0) return;
    LaunchGpu(stream, "memory.fill", {0, static_cast<double>(tensor.bytes())}, [&](cudaStream_t cuda) {
      CudaCheck(cudaMemsetAsync(tensor.data, value, tensor.bytes(), cuda), "memory.fill");
    });
  }

  std::unique_ptr<Graph> Capture(Stream& stream, std::function<void()> enqueue) override {
    const cudaStream_t cuda = CudaStream(stream);
    cudaGraph_t graph = nullptr;
    CudaCheck(cudaStreamBeginCapture(cuda, cudaStreamCaptureModeThreadLocal), "beginning to capture a graph");
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(cuda, &graph);
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();  // the capture that broke off is no error of what comes next
      throw;
    }
    CudaCheck(cudaStreamEndCapture(cuda, &graph), "capturing a graph");
    return std::make_unique<GpuGraph>(stream, graph);
  }

 private:
  int index_;
  cudaDeviceProp properties_{};
};

GpuStream& AsGpu(Stream& stream) {
  LS_CHECK(stream.kind() == DeviceKind::kGpu, "expected a stream of a GPU, found one of the {}",
           DeviceName(stream.kind()));
  return static_cast<GpuStream&>(stream);
}

}  // namespace

cudaStream_t CudaStream(Stream& stream) { return AsGpu(stream).Use(); }

int Multiprocessors(Stream& stream) {
  CudaStream(stream);
  int device = 0, count = 0;
  CudaCheck(cudaGetDevice(&device), "counting multiprocessors");
  CudaCheck(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "counting multiprocessors");
  return count;
}

GpuFaults* StreamFaults(Stream& stream) { return AsGpu(stream).faults(); }

void RecordForeign(CUstream_st* stream, Event& event) {
  const auto& own = static_cast<const GpuEvent&>(event);
  CudaCheck(cudaSetDevice(own.index()), "choosing the GPU");
  CudaCheck(cudaEventRecord(own.event(), stream), "recording an event");
}

void WaitForeign(CUstream_st* stream, const Event& event) {
  const auto& own = static_cast<const GpuEvent&>(event);
  CudaCheck(cudaSetDevice(own.index()), "choosing the GPU");
  CudaCheck(cudaStreamWaitEvent(stream, own.event(), 0), "waiting for an event");
}

std::unique_ptr<Device> MakeGpuDevice(int index) { return std::make_unique<GpuDevice>(index); }

int GpuCount() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver: no GPU
  return 0;
}

std::string GpuAddress(int index) {
  char address[32] = "";
  if (cudaDeviceGetPCIBusId(address, sizeof address, index) != cudaSuccess) {
    cudaGetLastError();
    return "";
  }
  std::string lower = address;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

}  // namespace longspan

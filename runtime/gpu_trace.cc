// Spans of GPU streams: pairs of timing events, and the clock that they are read by.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/gpu.h"
#include "runtime/planted_fault.h"

namespace longspan {
namespace {

// Timing events of all devices, reused when their span has been read. They live as long as the process.
class EventPool {
 public:
  static EventPool& Get() {
    static EventPool& pool = *new EventPool;  // spans may end after main
    return pool;
  }
  // An event of the current device.
  cudaEvent_t Take(int device) {
    {
      const std::lock_guard lock(mutex_);
      std::vector<cudaEvent_t>& free = free_[device];
      if (!free.empty()) {
        const cudaEvent_t event = free.back();
        free.pop_back();
        return event;
      }
    }
    cudaEvent_t event = nullptr;
    CudaCheck(cudaEventCreate(&event), "making a timing event");
    return event;
  }
  void Return(int device, cudaEvent_t event) {
    const std::lock_guard lock(mutex_);
    free_[device].push_back(event);
  }

 private:
  std::mutex mutex_;
  std::map<int, std::vector<cudaEvent_t>> free_;
};

int CurrentDevice() {
  int device = 0;
  CudaCheck(cudaGetDevice(&device), "asking for the current GPU");
  return device;
}

bool Capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CudaCheck(cudaStreamIsCapturing(stream, &status), "asking whether a stream is captured");
  return status != cudaStreamCaptureStatusNone;
}

struct SpanEvents {
  cudaEvent_t begin, end;
  bool shared = false;  // begin is the end of the span before
};

double Seconds(cudaEvent_t begin, cudaEvent_t end) {
  float milliseconds = 0;
  CudaCheck(cudaEventElapsedTime(&milliseconds, begin, end), "timing a span");
  return milliseconds * 1e-3;
}

// An event of a device that happened at this time of the host's clock. Spans refer to it until they are read.
struct ClockPoint {
  ClockPoint() { CudaCheck(cudaEventCreate(&event), "making a timing event"); }
  ~ClockPoint() { cudaEventDestroy(event); }
  ClockPoint(const ClockPoint&) = delete;
  ClockPoint& operator=(const ClockPoint&) = delete;
  cudaEvent_t event = nullptr;
  double seconds = 0;
};

// The newest of each device.
class ClockPoints {
 public:
  static ClockPoints& Get() {
    static ClockPoints& points = *new ClockPoints;  // spans may be read after main
    return points;
  }
  std::shared_ptr<const ClockPoint> Of(int device) {
    const std::lock_guard lock(mutex_);
    return points_[device];
  }
  void Set(int device, std::shared_ptr<const ClockPoint> point) {
    const std::lock_guard lock(mutex_);
    points_[device] = std::move(point);
  }

 private:
  std::mutex mutex_;
  std::map<int, std::shared_ptr<const ClockPoint>> points_;
};

// When the span began, by the host's clock (0 where that is not known), and how many seconds it took.
std::pair<double, double> Times(const SpanEvents& events, const ClockPoint* clock) {
  return {clock ? clock->seconds + Seconds(clock->event, events.begin) : 0, Seconds(events.begin, events.end)};
}

// The graph whose capture has begun on this thread.
thread_local GraphSpans* captured_graph = nullptr;

// The node that the next one captured on this stream will follow; nullptr when there are several or none.
cudaGraphNode_t CapturedLast(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* nodes = nullptr;
  size_t count = 0;
#if CUDART_VERSION >= 13000
  CudaCheck(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, nullptr, &count), "capturing a span");
#else
  CudaCheck(cudaStreamGetCaptureInfo_v2(stream, &status, nullptr, nullptr, &nodes, &count), "capturing a span");
#endif
  return count == 1 ? nodes[0] : nullptr;
}

// As a node of the graph where the stream is captured.
void Record(cudaEvent_t event, cudaStream_t stream, bool captured, const char* what) {
  CudaCheck(cudaEventRecordWithFlags(event, stream, captured ? cudaEventRecordExternal : cudaEventRecordDefault), what);
}

}  // namespace

// The best of some tries: what lies between the host's readings is the error.
void CompareGpuClock(cudaStream_t stream, int device) {
  constexpr int kTries = 5;
  std::shared_ptr<ClockPoint> best;
  double least = INFINITY;
  CudaCheck(cudaStreamSynchronize(stream), "comparing clocks");
  for (int i = 0; i < kTries; ++i) {
    auto point = std::make_shared<ClockPoint>();
    const double begin = WallSeconds();
    CudaCheck(cudaEventRecord(point->event, stream), "comparing clocks");
    CudaCheck(cudaEventSynchronize(point->event), "comparing clocks");
    const double between = WallSeconds() - begin;
    if (between >= least) continue;
    least = between;
    point->seconds = begin + between / 2;
    best = std::move(point);
  }
  ClockPoints::Get().Set(device, best);
}

struct GraphSpans::Events {
  explicit Events(int of_device) : device(of_device) {}
  ~Events() {
    for (const SpanEvents& span : spans) {
      if (!span.shared) EventPool::Get().Return(device, span.begin);
      EventPool::Get().Return(device, span.end);
    }
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  const int device;
  std::vector<SpanEvents> spans;
};

// One launch, which its spans refer to until the trace has read them. All are read at once: the next launch of the
// same executable records the same events.
class GraphSpans::Launched {
 public:
  Launched(std::shared_ptr<const Events> events, cudaStream_t stream)
      : events_(std::move(events)),
        clock_(ClockPoints::Get().Of(events_->device)),
        end_(EventPool::Get().Take(events_->device)) {
    CudaCheck(cudaEventRecord(end_, stream), "recording the end of a graph");
  }
  ~Launched() { EventPool::Get().Return(events_->device, end_); }
  Launched(const Launched&) = delete;
  Launched& operator=(const Launched&) = delete;

  void Read() {
    const std::lock_guard lock(mutex_);
    if (!times_.empty()) return;
    CudaCheck(cudaEventSynchronize(end_), "waiting for the end of a graph");
    times_.reserve(events_->spans.size());
    for (const SpanEvents& span : events_->spans) times_.push_back(Times(span, clock_.get()));
  }
  void Read(size_t index, TraceSpan* span) {
    Read();
    std::tie(span->begin, span->seconds) = times_[index];
  }

 private:
  const std::shared_ptr<const Events> events_;
  const std::shared_ptr<const ClockPoint> clock_;
  const cudaEvent_t end_;
  std::mutex mutex_;
  std::vector<std::pair<double, double>> times_;
};

GraphSpans::GraphSpans() : device_(CurrentDevice()) {
  events_[0] = std::make_shared<Events>(device_);
  if (Trace::Get().keeps()) captured_graph = this;
}

GraphSpans::~GraphSpans() { EndCapture(); }

void GraphSpans::EndCapture() {
  if (captured_graph == this) captured_graph = nullptr;
}

cudaEvent_t GraphSpans::EndJustBefore(cudaStream_t stream) const {
  const auto end = ends_.find(stream);
  return end != ends_.end() && end->second.first == CapturedLast(stream) ? end->second.second : nullptr;
}

void GraphSpans::Assign(cudaGraph_t graph, cudaGraphExec_t executable, int turn) {
  if (turn == 0) return;  // has the events of the capture
  constexpr const char* kWhat = "giving a graph events of its own";
  events_[turn] = std::make_shared<Events>(device_);
  std::unordered_map<cudaEvent_t, cudaEvent_t> own;  // by that of the capture
  for (const SpanEvents& span : events_[0]->spans) {
    for (const cudaEvent_t event : {span.begin, span.end}) {
      cudaEvent_t& mine = own[event];
      if (!mine) mine = EventPool::Get().Take(device_);
    }
    events_[turn]->spans.push_back({own[span.begin], own[span.end], span.shared});
  }
  size_t count = 0;
  CudaCheck(cudaGraphGetNodes(graph, nullptr, &count), kWhat);
  std::vector<cudaGraphNode_t> nodes(count);
  CudaCheck(cudaGraphGetNodes(graph, nodes.data(), &count), kWhat);
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    CudaCheck(cudaGraphNodeGetType(node, &type), kWhat);
    if (type != cudaGraphNodeTypeEventRecord) continue;
    cudaEvent_t event = nullptr;
    CudaCheck(cudaGraphEventRecordNodeGetEvent(node, &event), kWhat);
    const auto found = own.find(event);
    if (found != own.end()) CudaCheck(cudaGraphExecEventRecordNodeSetEvent(executable, node, found->second), kWhat);
  }
}

void GraphSpans::Launch(cudaGraphExec_t executable, cudaStream_t stream, int turn) {
  std::shared_ptr<Launched>& launched = launched_[turn];
  if (launched.use_count() > 1) launched->Read();  // the trace still holds spans of it
  CudaCheck(cudaGraphLaunch(executable, stream), "launching a graph");
  launched = std::make_shared<Launched>(events_[turn], stream);
  for (size_t i = 0; i < spans_.size(); ++i) {
    Trace::Get().AddPending(spans_[i], [launched, i](TraceSpan* span) { launched->Read(i, span); });
  }
}

GpuSpan::GpuSpan(Stream& stream, const char* name, const Cost& cost, const TransferId& transfer)
    : stream_(CudaStream(stream)), device_(CurrentDevice()) {
  span_.name = name;
  span_.cost = cost;
  span_.transfer = transfer;
  span_.place = CurrentPlace();
  span_.lane = stream.lane();
  PlantedFault::Get().Strike(span_.place);
  const bool capturing = Capturing(stream_);
  if (capturing && !captured_graph) return;
  if (capturing) {
    graph_ = captured_graph;
    begin_ = graph_->EndJustBefore(stream_);
    shared_ = begin_ != nullptr;
  }
  if (shared_) return;
  begin_ = EventPool::Get().Take(device_);
  Record(begin_, stream_, capturing, name);
}

GpuSpan::~GpuSpan() {
  if (begin_ && !shared_) EventPool::Get().Return(device_, begin_);
}

void GpuSpan::End() {
  CudaCheck(cudaGetLastError(), span_.name);
  // A stream may have joined a capture since: by the very wait that is the span.
  if (!begin_ || Capturing(stream_) != (graph_ != nullptr)) return;
  const SpanEvents events{begin_, EventPool::Get().Take(device_), shared_};
  Record(events.end, stream_, graph_ != nullptr, span_.name);
  begin_ = nullptr;
  if (graph_) {
    graph_->spans_.push_back(span_);
    graph_->events_[0]->spans.push_back(events);
    graph_->ends_[stream_] = {CapturedLast(stream_), events.end};
    return;
  }
  Trace::Get().AddPending(span_, [device = device_, events, clock = ClockPoints::Get().Of(device_)](TraceSpan* span) {
    CudaCheck(cudaEventSynchronize(events.end), "waiting for the end of a span");
    std::tie(span->begin, span->seconds) = Times(events, clock.get());
    EventPool::Get().Return(device, events.begin);
    EventPool::Get().Return(device, events.end);
  });
}

}  // namespace longspan

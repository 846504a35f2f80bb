// Where the tests of transfers run. The same tests are linked with cpu_places.cc and with gpu_places.cc.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "parallel/comm/comm.h"
#include "runtime/host_buffer.h"
#include "runtime/memory.h"

namespace longspan::test {

struct Place {
  std::string name;
  Transport transport;
  int reorder;            // CPU streams: 0 work at once, others are seeds of the reordering mode
  int ranks_of_node = 0;  // 0: all on one node
};
inline std::ostream& operator<<(std::ostream& out, const Place& place) { return out << place.name; }

std::vector<Place> Places();
std::vector<Place> NodePlaces();  // of several nodes
inline std::string PlaceName(const testing::TestParamInfo<Place>& info) { return info.param.name; }

// A device, its kernels, and all ranks as a group for its memory. The same for all tests of a transport; gone before
// MPI is.
struct Machine {
  std::unique_ptr<Device> device;
  std::unique_ptr<Communicator> world;
  Ops ops;
};
bool CanRun();  // false: no GPU, tests skip
Machine& MachineAt(const Place& place);

// Numbers in the memory of a device. `dtype` may name another type of the same width.
template <typename T>
class Placed {
 public:
  Placed(Device& device, Stream& stream, const std::vector<T>& values, DType dtype = DTypeOf<T>())
      : device_(device),
        stream_(stream),
        count_(static_cast<int64_t>(values.size())),
        buffer_(device, count_ * static_cast<int64_t>(sizeof(T)), "test values"),
        view_(buffer_.data(), dtype, device.kind(), {count_}) {
    device_.Copy(stream_, Tensor(buffer_.data(), DTypeOf<T>(), device.kind(), {count_}),
                 HostView(values.data(), {count_}));
    stream_.Synchronize();
  }
  const Tensor& view() const { return view_; }
  std::vector<T> Values() const {  // once the work of the stream is done
    std::vector<T> values(count_);
    device_.Copy(stream_, HostView(values.data(), {count_}),
                 Tensor(buffer_.data(), DTypeOf<T>(), device_.kind(), {count_}));
    stream_.Synchronize();
    return values;
  }

 private:
  Device& device_;
  Stream& stream_;
  int64_t count_;
  Buffer buffer_;
  Tensor view_;
};

}  // namespace longspan::test

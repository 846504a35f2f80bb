// The CPU: by MPI, and staged as if its memory were a GPU's.
#include <map>

#include "tests/parallel/places.h"

namespace longspan::test {
namespace {

std::map<Transport, Machine> machines;

class Cleanup : public testing::Environment {
 public:
  void TearDown() override { machines.clear(); }
};
[[maybe_unused]] const auto* const kCleanup = testing::AddGlobalTestEnvironment(new Cleanup);

}  // namespace

std::vector<Place> Places() {
  return {{"mpi", Transport::kAuto, 0},
          {"mpi_reordered_streams", Transport::kAuto, 1},
          {"mpi_reordered_streams_again", Transport::kAuto, 2},
          {"staged", Transport::kStaged, 0},
          {"staged_reordered_streams", Transport::kStaged, 3}};
}

bool CanRun() { return true; }

Machine& MachineAt(const Place& place) {
  Machine& machine = machines[place.transport];
  if (!machine.device) {
    machine.device = MakeCpuDevice();
    machine.world = MakeDeviceCommunicator(MakeMpiWorld(), *machine.device, place.transport);
    machine.ops = MakeCpuOps();
  }
  return machine;
}

}  // namespace longspan::test

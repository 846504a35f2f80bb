// The CPU: by MPI, and staged as if its memory were a GPU's.
#include <map>
#include <utility>

#include "tests/parallel/places.h"

namespace longspan::test {
namespace {

std::map<std::pair<Transport, int>, Machine> machines;

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

std::vector<Place> NodePlaces() {
  return {{"mpi_a_rank_a_node", Transport::kAuto, 0, 1},
          {"mpi_two_ranks_a_node", Transport::kAuto, 0, 2},
          {"mpi_three_ranks_a_node", Transport::kAuto, 1, 3},
          {"staged_two_ranks_a_node", Transport::kStaged, 0, 2}};
}

bool CanRun() { return true; }

Machine& MachineAt(const Place& place) {
  Machine& machine = machines[{place.transport, place.ranks_of_node}];
  if (!machine.device) {
    machine.device = MakeCpuDevice();
    machine.world = MakeDeviceCommunicator(MakeMpiWorld(place.ranks_of_node), *machine.device, place.transport);
    machine.ops = MakeCpuOps();
  }
  return machine;
}

}  // namespace longspan::test

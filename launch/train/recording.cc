#include "launch/train/recording.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace longspan {
namespace {

// Since the start of this process; 0 where the system does not say.
double StartupSeconds() {
  constexpr int kStartTime = 22;  // the field of /proc/self/stat, in ticks since the machine started
  std::ifstream file("/proc/self/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));  // behind the 2nd, a name
  std::string field;
  for (int i = 3; i <= kStartTime; ++i) fields >> field;
  std::ifstream uptime("/proc/uptime");
  double now = 0, ticks = 0;
  std::istringstream(field) >> ticks;
  return uptime >> now && ticks > 0 ? now - ticks / static_cast<double>(sysconf(_SC_CLK_TCK)) : 0;
}

ProfileLevel LevelOf(const ProfileConfig& profile) {
  switch (profile.level) {
    case ProfileDetail::kOff:
      return ProfileLevel::kOff;
    case ProfileDetail::kFull:
      return ProfileLevel::kFull;
    case ProfileDetail::kSteps:
      break;
  }
  return ProfileLevel::kSteps;
}

}  // namespace

Recorder::Args RecorderArgs(const Job& job, Session& session, const RunConfig& config, const std::string& folder,
                            bool append, const RunFacts& facts) {
  const Mesh& mesh = job.mesh();
  Recorder::Args args{.world = mesh.host_world(),
                      .device = job.device(),
                      .compute = session.compute(),
                      .folder = folder,
                      .level = LevelOf(config.profile),
                      .first_full = config.profile.first_step,
                      .full_steps = config.profile.steps,
                      .append = append,
                      .facts = facts};
  args.facts.dp = mesh.dp_index();
  args.facts.cp = mesh.cp_index();
  args.facts.dp_size = mesh.dp_size();
  args.facts.cp_size = mesh.cp_size();
  args.facts.startup_seconds = StartupSeconds();
  return args;
}

}  // namespace longspan

#include "launch/train/recording.h"

namespace longspan {
namespace {

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
                      .gpu = job.device().address(),
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
  return args;
}

}  // namespace longspan

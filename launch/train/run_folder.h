// RunFolder: the folder OUTPUT/NAME of a run, which one run at a time has and an older one keeps:
//
//   config.textproto  every key, as settled      profile/  rankNNNNN.pb, report.* (launch/report)
//   metrics.jsonl     launch/train/run_log.h     lock      locked (flock) as long as the run lasts; says who by
//   checkpoints/      launch/checkpoint/folder.h
//   eval.json         launch/report/eval_report.h, of the last `longspan eval`
//   stall-ID/         why a start of it hung (launch/job/watchdog.h)
//   id                what the run's files elsewhere are called by (in memory: launch/checkpoint/checkpoint.h)
#pragma once

#include <string>

#include "launch/config/run_config.h"
#include "parallel/comm/comm.h"

namespace longspan {

enum class OlderRun { kKeep, kReplace, kResume };  // what happens to one of the name

class RunFolder {
 public:
  // On the rank that `writes`, makes the folder and its id, takes its lock, and nothing else. Throws Error:
  // (configuration) naming the cures when another run has the lock, or an older run is there that it is to keep; (io).
  // On other ranks it does nothing but know the path. A file system without locks has none.
  RunFolder(const RunConfig& config, OlderRun older, bool writes);
  // What stands in the way of a run now; "" when nothing does.
  static std::string Problem(const RunConfig& config, OlderRun older);
  // 16 hexadecimal digits; "" when the folder has none.
  static std::string ReadId(const std::string& path);
  static std::string PathOf(const RunConfig& config);
  // Collective over `world`, on host memory, after all have constructed theirs. Throws Error (configuration), naming
  // the nodes, where some do not see the folder of the rank that writes: what they save would be lost to the others.
  void RequireShared(Communicator& world) const;

  const std::string& path() const { return path_; }
  const std::string& id() const { return id_; }  // of the rank that writes
  bool replaces() const { return replaces_; }    // an older run
  // Takes away what an older run left of its reports and, when it is replaced, of its ranks' profiles and its
  // checkpoints, and writes config.textproto. For the rank that writes.
  void Begin(const std::string& config_text);

 private:
  // Held by the process until it goes, whatever ends it.
  class Lock {
   public:
    Lock() = default;
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    // Returns who has it instead, "" when it was taken.
    std::string Take(const std::string& path);

   private:
    int file_ = -1;
  };

  const std::string path_;
  const OlderRun older_;
  Lock lock_;
  bool replaces_ = false;
  std::string id_;
};

}  // namespace longspan

// CheckpointFolder: the folder RUN/checkpoints of a run, as far as names go.
//
//   step-00000017/          a complete checkpoint: manifest.json and the files that it names
//   step-00000017.partial/  one that is being written or removed, or that a process left which was killed
//   step-00000017.broken/   set aside by a run that had to go back further
//   latest                  the name of the newest; a hint for people, nothing reads it
//
// A folder gets the name of a complete one when all of it is on the disk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/checkpoint/manifest.h"

namespace longspan {

constexpr const char* kManifestName = "manifest.json";
constexpr const char* kTokenizerName = "tokenizer.model";  // of the data's tokenizer, where it has a model

class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::string path) : path_(std::move(path)) {}  // need not be there

  struct Found {
    int64_t step;
    std::string path;
  };
  std::vector<Found> List() const;  // those named as complete, newest first; throws Error (io)
  std::string PathOf(int64_t step) const;
  std::string PartialOf(int64_t step) const { return PathOf(step) + ".partial"; }

  // What changes names is for one process, rank 0 of the run that has the run's folder, and throws Error (io).
  void Begin(int64_t step) const;  // an empty partial folder; what killed processes left goes
  // Once all other files of the partial folder are on the disk: writes the manifest and gives the folder its name. An
  // older one of the name goes.
  void Commit(const Manifest& manifest) const;
  void Abandon(int64_t step) const noexcept;  // removes the partial folder, where it can
  // Removes all but the newest `last` and those of steps that are multiples of `every` (0: none is).
  void Retain(int64_t last, int64_t every) const;
  void SetAside(const std::string& checkpoint) const;  // calls it broken
  void Remove(const std::string& checkpoint) const;

 private:
  const std::string path_;
};

// Of a checkpoint, a folder of checkpoints or a run's folder; of the latter two the newest named as complete. Throws
// Error (io) when there is none.
std::string NewestCheckpoint(const std::string& path);

// Writes a tokenizer's model, where it has one, into a save's folder, and notes it in the manifest. Throws Error (io).
void WriteTokenizerModel(const std::string& folder, const std::string& model, Manifest* manifest);

// What was written to a file, if there is one, is on the disk afterwards. Throws Error (io).
void SyncFile(const std::string& path);

}  // namespace longspan

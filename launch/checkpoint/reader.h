// CheckpointReader: a checkpoint on the disk, its checks and its tensors. Needs neither MPI nor a GPU.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "launch/checkpoint/manifest.h"
#include "runtime/files/safetensors.h"

namespace longspan {

class CheckpointReader {
 public:
  // Reads the manifest of the folder. Throws Error: (io) when it cannot be read, (data) when it is not what it should
  // be.
  explicit CheckpointReader(std::string path);
  // Of a manifest that was read before; some of its files may lie elsewhere.
  CheckpointReader(std::string path, Manifest manifest) : path_(std::move(path)), manifest_(std::move(manifest)) {}

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }

  // Whether a file of the manifest is there with the bytes and tensors that it should have; reads all of it. Throws
  // Error (io, data) naming the file, what was expected and what was found.
  void CheckFile(const std::string& name) const;

  // Elements [begin, begin + to.size()) of a tensor, to contiguous host memory. Throws Error (data) when there is no
  // such tensor, or none of to's dtype.
  void Read(const std::string& tensor, int64_t begin, const Tensor& to);

 private:
  std::string path_;
  Manifest manifest_;
  std::map<std::string, SafetensorsFile> open_;  // by name
};

}  // namespace longspan

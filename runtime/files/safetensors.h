// Safetensors: named tensors in one file, as Hugging Face tools read and write them.
//
//   file    = u64 N | N bytes of JSON | data                         (little-endian; N at most 100 000 000)
//   JSON    = {"name": {"dtype": "F32", "shape": [2,3], "data_offsets": [begin,end]}, ...,
//              "__metadata__": {"key": "value", ...}}                (begins with '{'; spaces may pad the end)
//   offsets count from the start of the data; end - begin = product(shape) * size(dtype); together the tensors cover
//   the data exactly: no overlap, no hole, nothing behind.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/files/mapped_file.h"
#include "runtime/tensor.h"

namespace longspan {

class SafetensorsFile {
 public:
  // Maps the file and checks every rule above. Throws Error (data) naming the file, the tensor and the rule; (io) when
  // it cannot be read.
  static SafetensorsFile Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::vector<std::string>& names() const { return names_; }  // ascending
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool Has(const std::string& name) const { return entries_.contains(name); }
  // A view into the file: read-only memory, valid while this object lives. Throws Error (data) when there is no such
  // tensor, its dtype is not one of DType's, or it has more than four dimensions.
  Tensor Get(const std::string& name) const;

 private:
  struct Entry {
    std::string dtype;
    std::vector<int64_t> shape;
    const std::byte* data;
    int64_t bytes;
  };
  friend struct SafetensorsParser;

  MappedFile file_;
  std::vector<std::string> names_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
  // Copies of tensors that lie unaligned in the file (a writer may leave the header unpadded).
  std::vector<std::unique_ptr<std::byte[]>> aligned_;
};

struct WrittenFile {
  int64_t bytes = 0;
  uint64_t checksum = 0;  // runtime/files/checksum.h
};

// Writes contiguous CPU tensors, widest dtype first, then by name; the file appears when it is complete. Throws Error
// (io). Returns what was to be written, as it left memory.
WrittenFile WriteSafetensors(const std::string& path, std::vector<std::pair<std::string, Tensor>> tensors,
                             const std::map<std::string, std::string>& metadata = {});

}  // namespace longspan

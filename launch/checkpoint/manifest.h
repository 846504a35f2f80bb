// Manifest: what a checkpoint holds, as its manifest.json says:
//
//   {"manifest": {"format": "longspan checkpoint", "version": 1,
//      "program": "longspan ..", "libraries": "..", "time": "2026-01-31T12:00:00Z",
//      "world": {"ranks","dp","cp","device","dtype"},
//      "state": {"step","sequences","seconds","graphs","numbers": {NAME: [..]}},
//      "data": [{"key": "data.train", "value": "<fingerprint>", "from": "<path>"}, ..],
//      "config": "<textproto of the whole configuration>",
//      "tensors": {NAME: {"dtype": "F32", "shape": [..], "parts": [{"file","begin","end"}, ..]}},
//      "files": {NAME: {"bytes": N, "xxh3": "<hex>"}}},
//    "xxh3": "<hex, of the manifest without spaces>"}
//
// A part is elements [begin,end) of the tensor in row order, which the file (safetensors) holds under the tensor's
// name; together the parts cover it once.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/tensor.h"

namespace longspan {

// What of a run continues besides its tensors, alike on all ranks. There is no state of random numbers: the order of
// the data is a function of data.seed and of `sequences`, and nothing else is drawn after the initialisation.
struct RunState {
  int64_t step = 0;       // the last one taken
  int64_t sequences = 0;  // of the order of the training data (launch/data/batches.h) that were taken
  double seconds = 0;     // for which the run has trained
  bool graphs = false;    // forward and backward run as CUDA graphs
  std::map<std::string, std::vector<double>> numbers = {};  // whatever else counts or averages over steps; finite
  bool operator==(const RunState&) const = default;
};

// What data or tokenizer a run has.
struct DataClaim {
  std::string key;    // "data.train"
  std::string value;  // a fingerprint
  std::string from;   // where it lies; may differ
  bool operator==(const DataClaim&) const = default;
};

struct Manifest {
  struct Part {
    std::string file;
    int64_t begin = 0, end = 0;
    bool operator==(const Part&) const = default;
  };
  struct Entry {
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    std::vector<Part> parts;
    bool operator==(const Entry&) const = default;
  };
  struct File {
    int64_t bytes = 0;
    uint64_t checksum = 0;
    bool operator==(const File&) const = default;
  };

  std::string program, libraries, time;
  int64_t ranks = 1, dp = 1, cp = 1;
  std::string device, dtype;
  RunState state;
  std::vector<DataClaim> data;
  std::string config;
  std::map<std::string, Entry> tensors;
  std::map<std::string, File> files;
  bool operator==(const Manifest&) const = default;

  std::string Text() const;
  // `path` is for messages. Throws Error (data) naming what was expected; whatever it returns keeps the rules above.
  static Manifest Parse(const std::string& text, const std::string& path);

  // Takes over the tensors and files of `part`, a manifest of one rank.
  void Add(const Manifest& part);
  int64_t bytes() const;  // of all files
};

}  // namespace longspan

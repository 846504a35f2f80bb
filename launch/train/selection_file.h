// Selection files: which blocks each query chose, in safetensors. Written by `train` and `attention`, taken back as a
// frozen choice by `train`, `verify`, `attention` and `bench nsa`.
//
//   tensor    [S,G,N] U16 or I32: by token and group the indices of the chosen blocks, ascending, then padding
//             (65535 in U16, -1 in I32). Written as U16 unless a block's index is 65535 or more.
//   name      "selected": of one operator; other tensors beside it are passed over, so that a result of `attention`
//             is a selection file, too
//             "sequences.I.layers.L.selected": of a model, layer L of those whose attention is NSA, for sequence I of
//             the training data (launch/data/sequence_source.h)
//   metadata  "select_block": tokens of a block; of a model also "step" and "data", for people
//
// The file is the same whatever the number of ranks that wrote it.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/files/safetensors.h"

namespace longspan {

inline constexpr const char* kSelected = "selected";  // the choice of one operator
std::string SelectionName(int64_t sequence, int64_t layer);

class SelectionWriter {
 public:
  explicit SelectionWriter(int64_t select_block) { Note("select_block", std::to_string(select_block)); }
  void Note(const std::string& key, const std::string& value) { metadata_[key] = value; }
  // selected [S,G,N] I32, padded with -1; copied.
  void Add(const std::string& name, std::span<const int32_t> selected, const Shape& shape);
  void Write(const std::string& path) const;  // throws Error (io)

 private:
  std::map<std::string, std::string> metadata_;
  std::deque<std::vector<uint16_t>> narrow_;
  std::deque<std::vector<int32_t>> wide_;
  std::vector<std::pair<std::string, Tensor>> tensors_;
};

class SelectionFile {
 public:
  // Throws Error (data) when it is no selection file, or of blocks of another length; (io) when it cannot be read.
  SelectionFile(const std::string& path, int64_t select_block);

  const std::string& path() const { return file_.path(); }
  std::string Fingerprint() const;                           // of all blocks and their names
  std::vector<int64_t> sequences() const;                    // of a model's, ascending
  std::vector<int64_t> layers(int64_t sequence) const;       // that the file has of it, ascending
  Shape shape(const std::string& name) const;                // throws Error (data) when it is not of three dimensions
  std::vector<int32_t> Read(const std::string& name) const;  // [S,G,N], padded with -1; throws Error (data)
  // The same, which must have this shape and be one that queries can have (CheckSelection).
  std::vector<int32_t> Read(const std::string& name, const Shape& expected, std::span<const int32_t> doc_start) const;

 private:
  SafetensorsFile file_;
  int64_t select_block_;
  std::map<int64_t, std::set<int64_t>> layers_;  // of each sequence of a model
};

// Throws Error (data) naming `what` and the first block that its query cannot see, or that is out of order. selected
// [S,G,N]; doc_start [S], empty for one document.
void CheckSelection(const std::string& what, std::span<const int32_t> selected, const Shape& shape,
                    std::span<const int32_t> doc_start, int64_t select_block);

}  // namespace longspan

// SequenceSource: a finite, numbered set of sequences of S tokens with labels and document starts. What training and
// evaluation draw from, whether it comes from files or from a formula.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "launch/config/run_config.h"

namespace longspan {

class SequenceSource {
 public:
  virtual ~SequenceSource() = default;
  virtual int64_t size() const = 0;    // sequences
  virtual int64_t length() const = 0;  // S
  virtual int64_t labels() const = 0;  // of all sequences
  // The datasets that it blends; one where it is no blend.
  struct Part {
    std::string name;     // its path
    int64_t first, size;  // its sequences are numbers [first, first + size)
    double weight;        // how often they come, against those of the others
  };
  virtual std::vector<Part> parts() const { return {{"", 0, size(), 1}}; }
  // Writes sequence `index` in [0, size): a pure function of it, whoever asks and in whatever order.
  //   tokens     [S]
  //   targets    [S], the next token of the same document; -1 = no label (a document's last token, padding)
  //   doc_start  [S], position of the first token of each token's document; all 0 without document masks
  // Throws Error (data) for a token id outside the vocabulary.
  virtual void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
                    std::span<int32_t> doc_start) const = 0;
  virtual std::string Summary() const = 0;  // one line for the start of a run
};

class Dataset;

struct Sources {
  std::unique_ptr<SequenceSource> train;
  std::unique_ptr<SequenceSource> validation;  // null when validation is empty and validation_fraction is 0
  struct File {
    std::string key;  // that names it: "data.train", "data.blend[0].validation"
    std::shared_ptr<const Dataset> dataset;
  };
  std::vector<File> files;  // that they read
};

// Opens what the configuration names. Documents start at multiples of `select_block` when data.document_masks is set.
// Throws Error: a file that cannot be read (io), is not what it should be or has no label (data), too small to split,
// or datasets of several tokenizers (configuration).
Sources OpenSources(const DataConfig& data, int64_t vocab, int64_t select_block);

// Reads part `part` of `parts` of the files whose ids could be outside the vocabulary `vocab`. Throws Error (data)
// naming key, file and place of the first that is. Breaks off when `stop` says so.
void CheckTokens(const Sources& sources, int64_t vocab, int64_t part = 0, int64_t parts = 1,
                 const std::function<bool()>& stop = {});

}  // namespace longspan

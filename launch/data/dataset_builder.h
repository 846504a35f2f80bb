// DatasetBuilder: texts become a tokenised Megatron dataset, each one document.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/data/megatron.h"
#include "launch/data/tokenizer.h"
#include "runtime/files/mapped_file.h"

namespace longspan {

class DatasetBuilder {
 public:
  // Replaces `prefix`.bin, .idx, .json and .tokenizer.model (DatasetRecord), whose folder is made. Above 0, a share of
  // the documents is held out: then `prefix`_train and `prefix`_validation are written. The tokenizer outlives the
  // builder. Throws Error (io), also when another process writes one of them, and when a .json there is no dataset's.
  DatasetBuilder(const std::string& prefix, double held_out_share, const Tokenizer& tokenizer);

  // Empty and binary files (a NUL byte) and empty texts are skipped and counted. Tokenises on all threads, many texts
  // at a time.
  void Add(MappedFile file);
  void Add(std::string text, const std::string& name);
  // The files appear, all of them or none; until then older ones stay as they are. Throws Error: (data) when there was
  // no text or no token of it, (usage) when a part would be without documents.
  void Finish();

  int64_t documents() const;
  int64_t tokens() const;
  int64_t empty() const { return empty_; }
  int64_t binary() const { return binary_; }
  int64_t text_bytes() const { return text_bytes_; }
  int64_t longest() const { return longest_; }  // tokens of the longest document
  const std::string& longest_name() const { return longest_name_; }
  // A dataset being written.
  struct Part {
    Part(const std::string& prefix, const Tokenizer& tokenizer);
    const std::string prefix;
    MegatronWriter tokens;
    OutputFile record;
    std::optional<OutputFile> model;  // of a tokenizer that has one
  };
  const std::list<Part>& parts() const { return parts_; }  // one, or train and validation

 private:
  struct Slice {
    std::string_view text;  // of the whole document
    size_t number;
    std::vector<int32_t> ids;
    std::string ends;  // name of the document that ends here; "" = it goes on
  };

  void Cut(std::string_view text, const std::string& name);
  void FlushFull();
  void Flush();
  bool IsHeldOut(int64_t document) const;

  const Tokenizer& tokenizer_;
  const double held_out_share_;
  std::list<Part> parts_;
  std::vector<MappedFile> files_;  // what the slices point into
  std::list<std::string> texts_;
  std::vector<Slice> slices_;
  int64_t slice_bytes_ = 0;
  int64_t empty_ = 0, binary_ = 0, text_bytes_ = 0;
  int64_t length_ = 0;  // of the document being written, in tokens
  int64_t longest_ = 0;
  std::string longest_name_;
};

}  // namespace longspan

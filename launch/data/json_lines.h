// JsonLines: the texts of a file of JSON lines (.jsonl, plain or compressed by gzip or zstd): each line is an object,
// and one of its keys holds a document's text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "launch/data/byte_stream.h"

namespace longspan {

class JsonLines {
 public:
  static constexpr int64_t kLongestLine = int64_t{1} << 30;  // bytes: so a broken or hostile file fills no memory

  // Throws Error (io) when the file cannot be read.
  JsonLines(const std::string& path, std::string key, int64_t longest_line = kLongestLine);

  // The text of the next line; false at the end. Blank lines are passed over. Throws Error (data) naming the file, the
  // line and the key for what is no object, has no string under the key, or is longer than the longest line, and for
  // compressed data that is broken.
  bool Next(std::string* text);
  int64_t line() const { return line_; }                    // of that text, from 1
  int64_t consumed() const { return stream_->consumed(); }  // bytes of the file

 private:
  bool NextLine(std::string* line);  // without its end

  const std::string path_, key_;
  const int64_t longest_line_;
  const std::unique_ptr<ByteStream> stream_;
  std::vector<char> read_;  // bytes of the stream; those from begin_ to end_ are still to come
  size_t begin_ = 0, end_ = 0;
  int64_t line_ = 0;
  std::string json_;
};

}  // namespace longspan

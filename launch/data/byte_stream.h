// ByteStream: the bytes of a file from the first to the last, decompressed when it begins as gzip's or Zstandard's do.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/files/mapped_file.h"

namespace longspan {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to out.size() more bytes, in front of `out`; returns how many, 0 at the end. Throws Error (data), naming the
  // file and the byte, for what is broken or cut off.
  virtual size_t Read(std::span<char> out) = 0;
  virtual int64_t consumed() const = 0;  // bytes of the file so far
};

// Throws Error: (io) when it cannot be read, (data) when it is compressed in a way that this program was built without.
std::unique_ptr<ByteStream> OpenByteStream(const std::string& path);

// Several members or frames after each other are one text, as gzip and zstd write them.
std::unique_ptr<ByteStream> MakeGzipStream(MappedFile file);
std::unique_ptr<ByteStream> MakeZstdStream(MappedFile file);

}  // namespace longspan

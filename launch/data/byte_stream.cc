#include "launch/data/byte_stream.h"

#include <algorithm>
#include <string_view>

namespace longspan {
namespace {

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(MappedFile file) : file_(std::move(file)) {}
  size_t Read(std::span<char> out) override {
    const int64_t count = std::min(static_cast<int64_t>(out.size()), file_.size() - consumed_);
    if (count > 0) std::memcpy(out.data(), file_.data() + consumed_, count);
    consumed_ += count;
    return count;
  }
  int64_t consumed() const override { return consumed_; }

 private:
  const MappedFile file_;
  int64_t consumed_ = 0;
};

}  // namespace

std::unique_ptr<ByteStream> OpenByteStream(const std::string& path) {
  MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  if (bytes.starts_with("\x1F\x8B")) return MakeGzipStream(std::move(file));
  // A frame, or one to be skipped, with which parallel writers begin.
  const bool skipped = bytes.size() >= 4 && (bytes[0] & 0xF0) == 0x50 && bytes.substr(1, 3) == "\x2A\x4D\x18";
  if (skipped || bytes.starts_with("\x28\xB5\x2F\xFD")) return MakeZstdStream(std::move(file));
  return std::make_unique<PlainStream>(std::move(file));
}

}  // namespace longspan

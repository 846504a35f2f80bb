#include <zlib.h>

#include <algorithm>

#include "launch/data/byte_stream.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int kGzipAlone = 15 + 16;                  // zlib's largest window, and its sign for gzip's header
constexpr int64_t kLargestPiece = int64_t{1} << 30;  // what zlib's 32-bit counts hold

class GzipStream : public ByteStream {
 public:
  explicit GzipStream(MappedFile file) : file_(std::move(file)) {
    LS_CHECK(inflateInit2(&stream_, kGzipAlone) == Z_OK, "zlib: cannot begin");
  }
  ~GzipStream() override { inflateEnd(&stream_); }

  size_t Read(std::span<char> out) override {
    const size_t wanted = std::min<size_t>(out.size(), kLargestPiece);
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(wanted);
    while (stream_.avail_out > 0 && !ended_) {
      const int64_t piece = std::min(kLargestPiece, file_.size() - consumed_);
      if (piece == 0) Fail(ExitCode::kData, "{}: expected more of gzip's data, found the file's end", file_.path());
      stream_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(file_.data() + consumed_));
      stream_.avail_in = static_cast<uInt>(piece);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      consumed_ += piece - stream_.avail_in;
      if (result == Z_STREAM_END) {
        EndMember();
      } else if (result != Z_OK) {
        Fail(ExitCode::kData, "{}: byte {}: expected gzip's data: {}", file_.path(), consumed_,
             stream_.msg != nullptr ? stream_.msg : zError(result));
      }
    }
    return wanted - stream_.avail_out;
  }
  int64_t consumed() const override { return consumed_; }

 private:
  // Another follows, or nothing but zeros, as tapes and gzip itself have it.
  void EndMember() {
    const std::byte* const rest = file_.data() + consumed_;
    const std::byte* const end = file_.data() + file_.size();
    ended_ = std::all_of(rest, end, [](std::byte byte) { return byte == std::byte{0}; });
    if (!ended_) inflateReset(&stream_);
  }

  const MappedFile file_;
  z_stream stream_{};
  int64_t consumed_ = 0;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<ByteStream> MakeGzipStream(MappedFile file) { return std::make_unique<GzipStream>(std::move(file)); }

}  // namespace longspan

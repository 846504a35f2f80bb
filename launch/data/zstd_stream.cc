#include <zstd.h>

#include "launch/data/byte_stream.h"
#include "runtime/error.h"

namespace longspan {
namespace {

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(MappedFile file) : file_(std::move(file)), stream_(ZSTD_createDStream()) {
    LS_CHECK(stream_ != nullptr, "zstd: cannot begin");
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, 31);  // the widest that its program writes (--long=31)
    input_ = {file_.data(), static_cast<size_t>(file_.size()), 0};
  }
  ~ZstdStream() override { ZSTD_freeDStream(stream_); }

  size_t Read(std::span<char> out) override {
    ZSTD_outBuffer output = {out.data(), out.size(), 0};
    while (output.pos < output.size && (input_.pos < input_.size || !frame_ended_)) {
      const size_t from = input_.pos, to = output.pos;
      const size_t left = ZSTD_decompressStream(stream_, &output, &input_);
      if (ZSTD_isError(left) != 0) {
        Fail(ExitCode::kData, "{}: byte {}: expected Zstandard's data: {}", file_.path(), input_.pos,
             ZSTD_getErrorName(left));
      }
      frame_ended_ = left == 0;
      if (!frame_ended_ && input_.pos == from && output.pos == to) {
        Fail(ExitCode::kData, "{}: expected more of Zstandard's data, found the file's end", file_.path());
      }
    }
    return output.pos;
  }
  int64_t consumed() const override { return static_cast<int64_t>(input_.pos); }

 private:
  const MappedFile file_;
  ZSTD_DStream* const stream_;
  ZSTD_inBuffer input_{};
  bool frame_ended_ = true;
};

}  // namespace

std::unique_ptr<ByteStream> MakeZstdStream(MappedFile file) { return std::make_unique<ZstdStream>(std::move(file)); }

}  // namespace longspan

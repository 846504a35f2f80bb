#include "launch/data/byte_stream.h"
#include "runtime/error.h"

namespace longspan {

std::unique_ptr<ByteStream> MakeZstdStream(MappedFile file) {
  Fail(ExitCode::kData, "{}: is compressed by zstd, and this program was built without libzstd; decompress it",
       file.path());
}

}  // namespace longspan

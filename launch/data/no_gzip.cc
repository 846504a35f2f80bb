#include "launch/data/byte_stream.h"
#include "runtime/error.h"

namespace longspan {

std::unique_ptr<ByteStream> MakeGzipStream(MappedFile file) {
  Fail(ExitCode::kData, "{}: is compressed by gzip, and this program was built without zlib; decompress it",
       file.path());
}

}  // namespace longspan

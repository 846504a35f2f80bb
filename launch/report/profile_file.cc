#include "launch/report/profile_file.h"

#include <fcntl.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/delimited_message_util.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "runtime/error.h"

namespace longspan {

namespace io = google::protobuf::io;

ProfileFile::ProfileFile(const std::string& path, bool append) : path_(path) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const int64_t whole =
      append && std::filesystem::exists(path) ? ReadProfileFile(path, [](const proto::Entry&) {}).whole_bytes : 0;
  file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0 || ftruncate(file_, whole) != 0 || lseek(file_, 0, SEEK_END) < 0) {
    Fail(ExitCode::kIo, "{}: cannot be written: {}", path, std::strerror(errno));
  }
}

ProfileFile::~ProfileFile() {
  if (file_ >= 0) close(file_);
}

void ProfileFile::Add(const proto::Entry& entry) {
  io::StringOutputStream stream(&unwritten_);
  google::protobuf::util::SerializeDelimitedToZeroCopyStream(entry, &stream);
}

void ProfileFile::Write() {
  const std::string text = std::exchange(unwritten_, {});
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = write(file_, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) Fail(ExitCode::kIo, "{}: cannot be written: {}", path_, std::strerror(errno));
    done += static_cast<size_t>(count);
  }
}

ProfileExtent ReadProfileFile(const std::string& path, const std::function<void(const proto::Entry&)>& take) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
  if (!file || error) Fail(ExitCode::kIo, "{}: cannot be read: {}", path, std::strerror(errno));
  ProfileExtent found;
  io::IstreamInputStream stream(&file);
  bool at_end = false;
  for (proto::Entry entry; google::protobuf::util::ParseDelimitedFromZeroCopyStream(&entry, &stream, &at_end);) {
    found.whole_bytes = stream.ByteCount();
    take(entry);
    entry.Clear();
  }
  found.torn_bytes = bytes - found.whole_bytes;
  return found;
}

}  // namespace longspan

#include "launch/checkpoint/reader.h"

#include <algorithm>
#include <cstring>

#include "launch/checkpoint/folder.h"
#include "runtime/error.h"
#include "runtime/files/checksum.h"

namespace longspan {
namespace {

Manifest ReadManifest(const std::string& path) {
  const MappedFile file(path);
  return Manifest::Parse({reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())}, path);
}

}  // namespace

CheckpointReader::CheckpointReader(std::string path)
    : path_(std::move(path)), manifest_(ReadManifest(path_ + "/" + kManifestName)) {}

void CheckpointReader::CheckFile(const std::string& name) const {
  const std::string path = path_ + "/" + name;
  const Manifest::File& expected = manifest_.files.at(name);
  {
    const MappedFile file(path);
    if (file.size() != expected.bytes) {
      Fail(ExitCode::kData, "{}: expected {} bytes, found {}", path, expected.bytes, file.size());
    }
    const uint64_t found = ChecksumOf(file.data(), file.size());
    if (found != expected.checksum) {
      Fail(ExitCode::kData, "{}: expected the checksum {}, found {}: its bytes were changed", path,
           ChecksumText(expected.checksum), ChecksumText(found));
    }
  }
  if (name == kTokenizerName) return;
  const SafetensorsFile file = SafetensorsFile::Open(path);
  for (const auto& [tensor, entry] : manifest_.tensors) {
    for (const Manifest::Part& part : entry.parts) {
      if (part.file != name) continue;
      const Tensor found = file.Get(tensor);
      if (found.dtype != entry.dtype || found.size() != part.end - part.begin) {
        Fail(ExitCode::kData, "{}: {}: expected {} elements of {}, found {} of {}", path, tensor, part.end - part.begin,
             DTypeName(entry.dtype), found.size(), DTypeName(found.dtype));
      }
    }
  }
}

void CheckpointReader::Read(const std::string& tensor, int64_t begin, const Tensor& to) {
  const auto found = manifest_.tensors.find(tensor);
  if (found == manifest_.tensors.end()) Fail(ExitCode::kData, "{}: holds no tensor \"{}\"", path_, tensor);
  const Manifest::Entry& entry = found->second;
  if (entry.dtype != to.dtype) {
    Fail(ExitCode::kData, "{}: {}: expected {}, found {}", path_, tensor, DTypeName(to.dtype), DTypeName(entry.dtype));
  }
  const int64_t end = begin + to.size(), element = DTypeSize(to.dtype);
  for (const Manifest::Part& part : entry.parts) {
    const int64_t first = std::max(begin, part.begin), last = std::min(end, part.end);
    if (first >= last) continue;
    if (!open_.contains(part.file)) open_.emplace(part.file, SafetensorsFile::Open(path_ + "/" + part.file));
    const Tensor held = open_.at(part.file).Get(tensor);
    std::memcpy(static_cast<std::byte*>(to.data) + (first - begin) * element,
                static_cast<const std::byte*>(held.data) + (first - part.begin) * element, (last - first) * element);
  }
}

}  // namespace longspan

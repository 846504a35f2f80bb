// The file of a rank's profile (launch/report/profile.proto), written as the run goes on and read at any time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "launch/report/profile.pb.h"

namespace longspan {

class ProfileFile {
 public:
  // Empty, or with `append` behind the whole entries that `path` holds already. Its folder is made. Throws Error (io).
  ProfileFile(const std::string& path, bool append);
  ~ProfileFile();
  ProfileFile(const ProfileFile&) = delete;
  ProfileFile& operator=(const ProfileFile&) = delete;

  void Add(const proto::Entry& entry);  // to memory
  void Write();                         // all so far; throws Error (io)

 private:
  const std::string path_;
  int file_ = -1;
  std::string unwritten_;
};

struct ProfileExtent {
  int64_t whole_bytes = 0;  // of the file, up to the end of the last whole entry
  int64_t torn_bytes = 0;   // behind it
};
// Hands over one entry after another: of a long run they fill gigabytes. Throws Error (io) where it cannot be read.
ProfileExtent ReadProfileFile(const std::string& path, const std::function<void(const proto::Entry&)>& take);

}  // namespace longspan

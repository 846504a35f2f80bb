// Checksum: the XXH3 hash of 64 bits of bytes that come piece by piece.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace longspan {

class Checksum {
 public:
  Checksum();
  ~Checksum();
  void Add(const void* data, int64_t bytes);
  uint64_t value() const;  // of all bytes so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

uint64_t ChecksumOf(const void* data, int64_t bytes);

std::string ChecksumText(uint64_t checksum);  // 16 hexadecimal digits

}  // namespace longspan

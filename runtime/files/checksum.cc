#include "runtime/files/checksum.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

namespace longspan {

struct Checksum::State {
  XXH3_state_t xxh3;
};

Checksum::Checksum() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh3); }
Checksum::~Checksum() = default;

void Checksum::Add(const void* data, int64_t bytes) { XXH3_64bits_update(&state_->xxh3, data, bytes); }

uint64_t Checksum::value() const { return XXH3_64bits_digest(&state_->xxh3); }

uint64_t ChecksumOf(const void* data, int64_t bytes) { return XXH3_64bits(data, bytes); }

std::string ChecksumText(uint64_t checksum) { return fmt::format("{:016x}", checksum); }

}  // namespace longspan

// Numbers of things in messages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace longspan {

std::string Count(int64_t count, std::string_view one);  // "1 rank", "2 ranks"
std::string FormatCount(double value);                   // 1234567 -> "1.23 M"
std::string FormatBytes(int64_t bytes);                  // "1.2 MiB"

}  // namespace longspan

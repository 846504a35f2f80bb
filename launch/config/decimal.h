// Numbers of a user are decimal, with leading zeros as well: 010 is ten. C, and protobuf's text format and CLI11 after
// it, read eight.
#pragma once

#include <cctype>
#include <cstdint>
#include <string>

namespace longspan {

// `number` without the zeros that would make it octal; hexadecimal (0x40) stays, as does what is no number.
inline std::string Decimal(std::string number) {
  const size_t sign = number.starts_with('-') ? 1 : 0;
  const auto is_digit = [&](size_t at) { return at < number.size() && std::isdigit(static_cast<uint8_t>(number[at])); };
  while (is_digit(sign) && number[sign] == '0' && is_digit(sign + 1)) number.erase(sign, 1);
  return number;
}

}  // namespace longspan

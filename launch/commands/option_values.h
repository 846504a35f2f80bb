// What the value of an option may be, said in the words of the rest of the program: "--layout: expected HEAD_TAIL or
// CONTIGUOUS, found FOO".
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace longspan {

// One of these names, in any case; the option gets its value. For transform().
template <typename T>
CLI::Validator OneOf(std::vector<std::pair<std::string, T>> names) {
  return CLI::Validator(
      [names = std::move(names)](std::string& text) {
        std::string expected;
        for (const auto& [name, value] : names) {
          if (CLI::detail::to_lower(text) == CLI::detail::to_lower(name)) {
            text = std::to_string(static_cast<int>(value));
            return std::string();
          }
          expected += (expected.empty() ? "" : " or ") + name;
        }
        return fmt::format("expected {}, found {}", expected, text);
      },
      "");
}

// A decimal number from `least` to `most`. For transform().
CLI::Validator WholeNumber(int64_t least, int64_t most);

// A number from 0 to below 1. For check().
CLI::Validator Fraction();

}  // namespace longspan

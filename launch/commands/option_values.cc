#include "launch/commands/option_values.h"

#include <charconv>

#include "launch/config/decimal.h"

namespace longspan {
namespace {

template <typename T>
bool IsNumber(const std::string& text, T* value) {
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, *value);
  return error == std::errc() && rest == end;
}

}  // namespace

CLI::Validator WholeNumber(int64_t least, int64_t most) {
  return CLI::Validator(
      [least, most](std::string& text) -> std::string {
        int64_t value = 0;
        if (!IsNumber(text, &value) || value < least || value > most) {
          return fmt::format("expected a whole number from {} to {}, found {}", least, most, text);
        }
        text = Decimal(text);
        return "";
      },
      "");
}

CLI::Validator Fraction() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        double value = 0;
        if (IsNumber(text, &value) && value >= 0 && value < 1) return "";
        return fmt::format("expected a number from 0 to below 1, found {}", text);
      },
      "");
}

}  // namespace longspan

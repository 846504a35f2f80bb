#include "launch/config/textproto.h"

#include <fmt/format.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <string_view>

namespace longspan {
namespace {

using google::protobuf::io::Tokenizer;

constexpr int kDeepest = 16;  // groups in groups; no schema comes near

struct SyntaxError {
  int line;
  std::string text;
};

// Bad characters and strings without an end, found while the tokenizer looks ahead.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int /*column*/, const std::string& message) override {
    if (message.find("octal") != std::string::npos) return;  // 08: a decimal number here
    throw SyntaxError{line + 1, message};
  }
};

class Scanner {
 public:
  Scanner(std::string_view text, std::vector<TextprotoEntry>* entries)
      : input_(text.data(), static_cast<int>(text.size())), tokens_(&input_, &errors_), entries_(entries) {
    tokens_.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokens_.set_allow_f_after_float(true);
  }

  void Scan() {
    tokens_.Next();
    Fields("");
    if (!At(Tokenizer::TYPE_END)) Refuse("expected a key");
  }

 private:
  bool At(Tokenizer::TokenType type) { return tokens_.current().type == type; }
  bool At(const char* symbol) { return At(Tokenizer::TYPE_SYMBOL) && tokens_.current().text == symbol; }
  int line() { return tokens_.current().line + 1; }

  bool Take(const char* symbol) {
    const bool here = At(symbol);
    if (here) tokens_.Next();
    return here;
  }

  [[noreturn]] void Refuse(const std::string& expected) {
    const std::string found =
        At(Tokenizer::TYPE_END) ? "the end of the file" : fmt::format("'{}'", tokens_.current().text);
    throw SyntaxError{line(), fmt::format("{}, found {}", expected, found)};
  }

  std::string TakeText() {
    std::string text = tokens_.current().text;
    tokens_.Next();
    return text;
  }

  void Fields(const std::string& prefix) {
    if (std::count(prefix.begin(), prefix.end(), '.') > kDeepest) Refuse("expected no group in so many others");
    while (At(Tokenizer::TYPE_IDENTIFIER)) {
      const int at = line();
      std::string path = prefix + TakeText();
      while (Take(".")) {
        if (!At(Tokenizer::TYPE_IDENTIFIER)) Refuse(fmt::format("expected a name after {}.", path));
        path += "." + TakeText();
      }
      const bool colon = Take(":") || Take("=");
      if (Take("{")) {
        entries_->push_back({path, "", at, true});
        Fields(path + ".");
        if (!Take("}")) Refuse(fmt::format("expected a key or the '}}' of {} (line {})", path, at));
      } else if (!colon) {
        Refuse(fmt::format("expected ':', '=' or '{{' after {}", path));
      } else if (Take("[")) {
        if (Take("]")) {
          entries_->push_back({path, "", at});
        } else {
          do {
            entries_->push_back({path, Value(path), at});
          } while (Take(","));
          if (!Take("]")) Refuse(fmt::format("expected ',' or ']' in the list {}", path));
        }
      } else {
        entries_->push_back({path, Value(path), at});
      }
      if (!Take(",")) Take(";");
    }
  }

  std::string Value(const std::string& path) {
    if (At(Tokenizer::TYPE_STRING)) {
      std::string text = TakeText();
      while (At(Tokenizer::TYPE_STRING)) text.append(" ").append(TakeText());
      return text;
    }
    std::string text = Take("-") ? "-" : "";
    if (!At(Tokenizer::TYPE_IDENTIFIER) && !At(Tokenizer::TYPE_INTEGER) && !At(Tokenizer::TYPE_FLOAT)) {
      Refuse(fmt::format("expected a value for {}", path));
    }
    return text.append(TakeText());
  }

  google::protobuf::io::ArrayInputStream input_;
  FirstError errors_;
  Tokenizer tokens_;
  std::vector<TextprotoEntry>* entries_;
};

}  // namespace

Textproto ScanTextproto(std::string_view text) {
  Textproto result;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // the byte order mark that some editors write
  try {
    Scanner(text, &result.entries).Scan();
  } catch (const SyntaxError& error) {
    result.error = error.text;
    result.error_line = error.line;
  }
  return result;
}

}  // namespace longspan

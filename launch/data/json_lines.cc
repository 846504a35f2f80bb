#include "launch/data/json_lines.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/error.h"

namespace longspan {
namespace {

using Json = nlohmann::json;

// Takes the value of one key of the outermost object as it is parsed; nothing else is kept, however deep it is.
class ValueOf : public nlohmann::json_sax<Json> {
 public:
  ValueOf(const std::string& key, std::string* text) : key_(key), text_(text) {}
  // What was expected but not found; "" when the text was taken.
  const std::string& problem() const { return problem_; }
  void Finish() {
    if (problem_.empty() && !taken_) problem_ = fmt::format("expected a text under \"{}\", found no such key", key_);
  }

  bool null() override { return Other("null"); }
  bool boolean(bool) override { return Other("a truth value"); }
  bool number_integer(number_integer_t) override { return Other("a number"); }
  bool number_unsigned(number_unsigned_t) override { return Other("a number"); }
  bool number_float(number_float_t, const string_t&) override { return Other("a number"); }
  bool binary(binary_t&) override { return Other("bytes"); }
  bool string(string_t& value) override {
    if (depth_ == 0) return Other("a text");
    if (!Wanted()) return true;
    *text_ = std::move(value);
    taken_ = true;
    return true;
  }
  bool start_object(size_t) override { return Deeper("an object", true); }
  bool start_array(size_t) override { return Deeper("a list", false); }
  bool end_object() override { return Shallower(); }
  bool end_array() override { return Shallower(); }
  bool key(string_t& name) override {
    if (depth_ == 1) wanted_ = name == key_;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    problem_ = fmt::format("expected an object of JSON: {}", std::string(error.what()).substr(0, 200));
    return false;
  }

 private:
  bool Wanted() const { return depth_ == 1 && wanted_; }
  bool Refuse(const char* found) {
    problem_ = depth_ == 0 ? fmt::format("expected an object of JSON, found {}", found)
                           : fmt::format("expected a text under \"{}\", found {}", key_, found);
    return false;
  }
  bool Other(const char* found) { return depth_ == 0 || Wanted() ? Refuse(found) : true; }
  bool Deeper(const char* found, bool object) {
    if (Wanted() || (depth_ == 0 && !object)) return Refuse(found);
    ++depth_;
    return true;
  }
  bool Shallower() {
    --depth_;
    return true;
  }

  const std::string& key_;
  std::string* const text_;
  std::string problem_;
  int64_t depth_ = 0;
  bool wanted_ = false, taken_ = false;
};

}  // namespace

JsonLines::JsonLines(const std::string& path, std::string key, int64_t longest_line)
    : path_(path), key_(std::move(key)), longest_line_(longest_line), stream_(OpenByteStream(path)), read_(1 << 18) {}

bool JsonLines::NextLine(std::string* line) {
  line->clear();
  while (true) {
    const char* const begin = read_.data() + begin_;
    const auto* const newline = static_cast<const char*>(std::memchr(begin, '\n', end_ - begin_));
    const size_t taken = newline != nullptr ? newline - begin : end_ - begin_;
    if (static_cast<int64_t>(line->size() + taken) > longest_line_) {
      Fail(ExitCode::kData, "{}:{}: expected a line of at most {} bytes, found more", path_, line_ + 1, longest_line_);
    }
    line->append(begin, taken);
    begin_ += taken + (newline != nullptr ? 1 : 0);
    if (newline == nullptr) {
      begin_ = 0;
      end_ = stream_->Read(read_);
      if (end_ > 0) continue;
      if (line->empty()) return false;
    }
    ++line_;
    return true;
  }
}

bool JsonLines::Next(std::string* text) {
  do {
    if (!NextLine(&json_)) return false;
  } while (json_.find_first_not_of(" \t\r") == std::string::npos);
  ValueOf value(key_, text);
  if (Json::sax_parse(json_, &value)) value.Finish();
  if (!value.problem().empty()) Fail(ExitCode::kData, "{}:{}: {}", path_, line_, value.problem());
  return true;
}

}  // namespace longspan

// What the tests of files share: a folder that goes away, files of given bytes, and errors looked at closely.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <string>

#include "runtime/error.h"

namespace longspan {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "longspan_test_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) Fail(ExitCode::kIo, "cannot create {}", name);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code error;  // of a program that still writes to it
    std::filesystem::remove_all(path_, error);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline void WriteFile(const std::string& path, const std::string& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

// Of what cannot be read, such as a process in /proc that has just ended, "".
inline std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// The bytes of numbers, for writing formats by hand: Bytes<int32_t>(1, 2, 3).
template <typename T, typename... Values>
std::string Bytes(Values... values) {
  std::string bytes;
  const auto add = [&](T value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof(T)); };
  (add(static_cast<T>(values)), ...);
  return bytes;
}

// `call` must throw Error with this code, and a text that holds all of `parts`.
template <typename Call>
void ExpectError(ExitCode code, std::initializer_list<std::string> parts, Call call) {
  try {
    call();
    ADD_FAILURE() << "expected an error with " << *parts.begin();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what() << "\nlacks: " << part;
  }
}

}  // namespace longspan

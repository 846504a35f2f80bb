// A mapped file that is cut under its reader ends the reader, by name.
#include "runtime/files/mapped_file.h"

#include <csignal>
#include <filesystem>

#include "tests/support/files.h"

namespace longspan {
namespace {

TEST(MappedFileDeathTest, AFileThatIsCutIsNamed) {
  const TempFolder folder;
  const std::string path = folder / "a b.bin";
  WriteFile(path, std::string(3 << 16, 'x'));
  const MappedFile file(path);
  EXPECT_EQ(file.Read<char>(2 << 16), 'x');
  EXPECT_EXIT(
      {
        std::filesystem::resize_file(path, 1 << 16);
        fmt::print("{}", file.Read<int64_t>(2 << 16));
      },
      testing::ExitedWithCode(static_cast<int>(ExitCode::kIo)),
      "error: .*a b\\.bin: expected the bytes .* found none at 131072: the file was cut");
}

TEST(MappedFileDeathTest, AnotherBusErrorStaysWhatItWas) {
  const TempFolder folder;
  WriteFile(folder / "file", "x");
  const MappedFile file(folder / "file");
  EXPECT_EXIT(
      {
        raise(SIGBUS);
        raise(SIGBUS);
      },
      testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace longspan

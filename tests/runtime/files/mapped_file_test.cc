// A mapped file that is cut under its reader ends the reader, by name.
#include "runtime/files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

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
  EXPECT_EXIT(raise(SIGBUS), testing::KilledBySignal(SIGBUS), "");
  // Memory that programs share is no file that was opened to be read: it may have no room left.
  const int shared = open((folder / "file").c_str(), O_RDWR);
  void* const memory = mmap(nullptr, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_EXIT(static_cast<volatile char*>(memory)[1 << 15] = 1, testing::KilledBySignal(SIGBUS), "");
  munmap(memory, 1 << 16);
  close(shared);
}

}  // namespace
}  // namespace longspan

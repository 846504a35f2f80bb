// Refuses a processor that lacks what the program was built for, before anything else runs: the first such instruction
// would end it without a word. Compiled for the least processor there is, and with nothing but the C library.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace {

constexpr int kConfiguration = 78;  // ExitCode::kConfiguration

void Say(const char* text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(kConfiguration);
}

// Priority 101, the first that programs may have: before all static objects.
__attribute__((constructor(101))) void CheckProcessor() {
  __builtin_cpu_init();
  bool good = true;
  const auto need = [&](const char* feature, bool supported) {
    if (supported) return;
    Say(good ? "error: this processor lacks " : ", ");
    Say(feature);
    good = false;
  };
#define LONGSPAN_NEED(feature) need(#feature, __builtin_cpu_supports(#feature));
  LONGSPAN_NEEDS
  if (good) return;
  Say(", for which longspan was built; build it for this one: cmake -DLONGSPAN_NATIVE=ON\n");
  _exit(kConfiguration);
}

}  // namespace

// Where the threads of this process are, asked by a signal: their places (runtime/place.h) and native stacks.
#pragma once

#include <string>

namespace longspan {

// Before the first thread is asked: takes the signal for it.
void PrepareStacks();

// The first thread's, then those of other threads that are at a place, such as the one that loads data. All are asked
// at once and have 0.3 s together to answer. Lines for people, each with its end.
std::string ThreadStacks();

}  // namespace longspan

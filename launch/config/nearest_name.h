// For error messages: the right name that a wrong one was probably meant to be.
#pragma once

#include <string>
#include <vector>

namespace longspan {

// Levenshtein's distance: insertions, deletions and replacements of single characters.
int EditDistance(const std::string& a, const std::string& b);

// The first of those with the fewest edits to `name`. `names` is not empty.
std::string NearestName(const std::string& name, const std::vector<std::string>& names);

}  // namespace longspan

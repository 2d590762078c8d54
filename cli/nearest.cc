#include "cli/nearest.h"

#include <algorithm>

namespace spillway {
namespace {

constexpr size_t kTypedMax = 64;  // longer than any name

size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

}  // namespace

std::string did_you_mean(std::string_view typed, const std::vector<std::string>& names) {
  if (typed.size() > kTypedMax) return "";
  const std::string* nearest = nullptr;
  size_t fewest = 0;
  for (const std::string& name : names) {
    const size_t needed = edits(typed, name);
    if (needed > std::max<size_t>(1, name.size() / 3) || (nearest != nullptr && needed >= fewest)) continue;
    nearest = &name;
    fewest = needed;
  }
  return nearest == nullptr ? "" : "; did you mean " + *nearest + "?";
}

}  // namespace spillway

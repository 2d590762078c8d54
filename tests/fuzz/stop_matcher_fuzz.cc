#include <algorithm>
#include <string>

#include "common/check.h"
#include "gateway/stop_matcher.h"
#include "tests/fuzz/fuzz_input.h"

namespace spillway {
namespace {

struct Found {
  std::string text;
  bool matched = false;
  bool operator==(const Found&) const = default;
};

// What the class promises, in the plainest way: by looking at every place for every stop string.
Found plainly(const std::vector<std::string>& stops, std::string_view text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops)
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    if (longest > 0) return {std::string(text.substr(0, end - longest)), true};
  }
  return {std::string(text), false};
}

}  // namespace
}  // namespace spillway

// Parts between 0x1e: up to four stop strings, then the text; 0x1f in the text cuts it into pieces. Whatever the
// pieces, the answer is that of plain search, and what waits is a beginning of a stop string.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  const auto parts = split_input(input_text(data, size), '\x1e', kStopStringsMax + 1);
  std::vector<std::string> stops;
  for (size_t at = 0; at + 1 < parts.size(); ++at)
    if (!parts[at].empty()) stops.emplace_back(parts[at].substr(0, kStopBytesMax));
  StopMatcher matcher(stops);
  Found found;
  std::string whole;
  for (const std::string_view piece : split_input(parts.back(), '\x1f', SIZE_MAX)) {
    whole += piece;
    found.text += matcher.push(piece);
    if (!matcher.matched()) CHECK(whole.size() - found.text.size() < kStopBytesMax && whole.starts_with(found.text));
  }
  found.matched = matcher.matched();
  found.text += matcher.finish();
  CHECK(found == plainly(stops, whole));
  return 0;
}

#include "gateway/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    CHECK(!stop.empty());
    Pattern pattern{std::move(stop), {0}};
    for (size_t end = 1; end < pattern.text.size(); ++end) {
      size_t border = pattern.borders.back();
      while (border > 0 && pattern.text[border] != pattern.text[end]) border = pattern.borders[border - 1];
      pattern.borders.push_back(pattern.text[border] == pattern.text[end] ? border + 1 : 0);
    }
    patterns_.push_back(std::move(pattern));
  }
}

void StopMatcher::Pattern::take(char byte) {
  while (length > 0 && text[length] != byte) length = borders[length - 1];
  if (text[length] == byte) ++length;
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  for (const char byte : text) {
    waiting_.push_back(byte);
    size_t stop_bytes = 0;
    for (Pattern& pattern : patterns_) {
      pattern.take(byte);
      if (pattern.length == pattern.text.size()) stop_bytes = std::max(stop_bytes, pattern.length);
    }
    if (stop_bytes == 0) continue;
    matched_ = true;
    waiting_.resize(waiting_.size() - stop_bytes);
    return std::exchange(waiting_, {});
  }
  size_t beginning = 0;
  for (const Pattern& pattern : patterns_) beginning = std::max(beginning, pattern.length);
  std::string free = waiting_.substr(0, waiting_.size() - beginning);
  waiting_.erase(0, free.size());
  return free;
}

std::string StopMatcher::finish() { return std::exchange(waiting_, {}); }

}  // namespace spillway

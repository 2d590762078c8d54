#include "cli/api_key_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "cli/private_file.h"
#include "common/check.h"

namespace spillway {
namespace {

std::string read_all(const std::string& path) {
  const std::optional<UniqueFd> file = open_private_file(path, "API key", Links::kFollowed);
  if (!file) throw SetupError(fmt::format("there is no API key file {}: write one key a line and chmod 600 it", path));
  return read_small_file(*file, path, "API key");
}

bool is_key(std::string_view line) {
  return line.size() <= kApiKeyBytesMax &&
         std::all_of(line.begin(), line.end(), [](char c) { return c >= 0x21 && c <= 0x7e; });
}

void wipe(std::string& secret) { ::explicit_bzero(secret.data(), secret.size()); }

// The file's text, which leaves no copy behind where its memory is used again.
class WipedText {
 public:
  explicit WipedText(std::string text) : text_(std::move(text)) {}
  WipedText(const WipedText&) = delete;
  WipedText& operator=(const WipedText&) = delete;
  ~WipedText() { wipe(text_); }
  std::string_view view() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

std::vector<std::string> read_api_keys(const std::string& path) {
  const WipedText text(read_all(path));
  std::vector<std::string> keys;
  std::string_view left = text.view();
  for (size_t number = 1; !left.empty(); ++number) {
    std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(line.size() + 1, left.size()));
    line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
    if (line.empty() || line.front() == '#') continue;
    if (!is_key(line))
      throw SetupError(
          fmt::format("API key file {}, line {}: a key is at most {} printable ASCII characters, no spaces", path,
                      number, kApiKeyBytesMax));
    if (line.size() < kApiKeyBytesMin)
      throw SetupError(
          fmt::format("API key file {}, line {}: a key has at least {} characters, or others could guess "
                      "it: openssl rand -hex 32 makes one",
                      path, number, kApiKeyBytesMin));
    keys.emplace_back(line);
  }
  if (keys.empty() || keys.size() > kApiKeysMax)
    throw SetupError(fmt::format("API key file {} has {} keys: it must have 1 to {}", path, keys.size(), kApiKeysMax));
  return keys;
}

void check_api_keys(const std::string& path) {
  for (std::string& key : read_api_keys(path)) wipe(key);
}

ApiKeys read_hashed_api_keys(const std::string& path, std::span<const std::byte> secret) {
  std::vector<std::string> keys = read_api_keys(path);
  ApiKeys hashed(keys, secret);
  for (std::string& key : keys) wipe(key);
  return hashed;
}

}  // namespace spillway

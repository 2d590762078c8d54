#include "cli/api_key_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "cli/private_file.h"
#include "common/check.h"
#include "gateway/api_keys.h"

namespace spillway {
namespace {

std::string read_all(const std::string& path) {
  const std::optional<UniqueFd> file = open_private_file(path, "API key");
  if (!file) throw SetupError(fmt::format("there is no API key file {}: write one key a line and chmod 600 it", path));
  return read_small_file(*file, path, "API key");
}

bool is_key(std::string_view line) {
  return line.size() <= kApiKeyBytesMax &&
         std::all_of(line.begin(), line.end(), [](char c) { return c >= 0x21 && c <= 0x7e; });
}

}  // namespace

std::vector<std::string> read_api_keys(const std::string& path) {
  const std::string text = read_all(path);
  std::vector<std::string> keys;
  std::string_view left = text;
  for (size_t number = 1; !left.empty(); ++number) {
    std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(line.size() + 1, left.size()));
    line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
    if (line.empty() || line.front() == '#') continue;
    if (!is_key(line))
      throw SetupError(
          fmt::format("API key file {}, line {}: a key is at most {} printable ASCII characters, no spaces", path,
                      number, kApiKeyBytesMax));
    keys.emplace_back(line);
  }
  if (keys.empty() || keys.size() > kApiKeysMax)
    throw SetupError(fmt::format("API key file {} has {} keys: it must have 1 to {}", path, keys.size(), kApiKeysMax));
  return keys;
}

}  // namespace spillway

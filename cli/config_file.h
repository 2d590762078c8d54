#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace spillway {

inline constexpr uint64_t kConfigFileBytesMax = uint64_t{1} << 20;

struct ConfigEntry {
  std::string key;
  std::vector<std::string> values;
  int line = 0;  // from 1
};

// Reads `--config FILE.yaml`: one flat map of long flags to a value or a list of values. Throws CLI::ParseError that
// names the file, the line and what is wrong; whether a key is a flag is for the caller to say.
std::vector<ConfigEntry> read_config_file(const std::string& path);

}  // namespace spillway

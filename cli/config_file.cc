#include "cli/config_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/quote.h"

namespace spillway {
namespace {

std::string read_text(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw CLI::FileError("--config " + path + ": a folder, not a file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw CLI::FileError(fmt::format("--config {}: cannot open: {}", path, std::strerror(errno)));
  std::string text(kConfigFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kConfigFileBytesMax)
    throw CLI::FileError(
        fmt::format("--config {}: more than {} bytes: is it a config file?", path, kConfigFileBytesMax));
  return text;
}

ConfigEntry entry_of(const YAML::Node& key, const YAML::Node& value, const std::string& path) {
  ConfigEntry entry;
  entry.line = key.Mark().line + 1;
  const auto refuse = [&](const std::string& what) {
    return CLI::ConversionError(fmt::format("--config {}, line {}: {}", path, entry.line, what));
  };
  if (!key.IsScalar()) throw refuse("a key must be the name of a long flag");
  entry.key = key.as<std::string>();
  const auto add = [&](const YAML::Node& one) {
    if (!one.IsScalar()) throw refuse(quote_foreign(entry.key) + " must be a value or a list of values");
    entry.values.push_back(one.as<std::string>());
  };
  if (value.IsSequence())
    for (const YAML::Node& one : value) add(one);
  else if (!value.IsNull())  // "key:" is the default
    add(value);
  return entry;
}

}  // namespace

std::vector<ConfigEntry> read_config_file(const std::string& path) try {
  const YAML::Node root = YAML::Load(read_text(path));
  if (!root.IsMap() && !root.IsNull())
    throw CLI::ConversionError(
        fmt::format("--config {}: must be a map of long flags to values, e.g. port: 8000", path));
  std::vector<ConfigEntry> entries;
  for (const auto& pair : root) {
    ConfigEntry entry = entry_of(pair.first, pair.second, path);
    if (std::ranges::find(entries, entry.key, &ConfigEntry::key) != entries.end())
      throw CLI::ConversionError(
          fmt::format("--config {}, line {}: {} stands there twice", path, entry.line, quote_foreign(entry.key)));
    entries.push_back(std::move(entry));
  }
  return entries;
} catch (const YAML::Exception& error) {
  throw CLI::ConversionError(fmt::format("--config {}, line {}: {}", path, error.mark.line + 1, error.msg));
}

}  // namespace spillway

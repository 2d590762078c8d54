#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

namespace spillway {

inline constexpr char kEnvironmentPrefix[] = "SPILLWAY_";
using Environment = std::map<std::string, std::string>;  // variables of our prefix, by whole name

// Those of `entries` ("NAME=value", null at the end) that are ours. An empty one counts as not set.
Environment our_environment(const char* const* entries);

std::string variable_of(const std::string& flag);  // "max-model-len" -> "SPILLWAY_MAX_MODEL_LEN"

// What a file or the environment may set, in the order of the help.
std::vector<CLI::Option*> settings_of(CLI::App& command);
std::string flag_of(const CLI::Option& option);  // "max-model-len"

// The values in force of one subcommand: command line over environment over file over default, each with its origin.
// Built once CLI11 has read the command line. CLI11's own order is file over environment, hence this class.
class Configuration {
 public:
  // Throws CLI::ParseError that names the variable, or the file, line and key.
  Configuration(CLI::App& command, const Environment& environment, const std::string& config_path);

  bool given(const std::string& flag) const;  // not left to its default
  const std::string& origin(const std::string& flag) const;
  // Sets what nobody gave.
  void choose(const std::string& flag, const std::string& value, const std::string& origin);
  // As --config takes it back, each line with its origin.
  std::string yaml() const;

 private:
  CLI::Option& option(const std::string& flag) const;
  void take(CLI::Option& option, const std::vector<std::string>& values, const std::string& origin,
            const std::string& where);
  void take_environment(const Environment& environment);
  void take_file(const std::string& path);

  CLI::App& command_;
  std::map<std::string, std::string> origins_;  // by flag
};

// Warnings about variables of ours that are no flag of any subcommand of `app`.
std::vector<std::string> unknown_variables(CLI::App& app, const Environment& environment);

}  // namespace spillway

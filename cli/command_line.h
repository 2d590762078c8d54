#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "cli/configuration.h"
#include "cli/flags.h"
#include "cli/options.h"

namespace spillway {

// A role, or a question one may ask. Its groups are the flags that it reads: others are refused.
struct Subcommand {
  const char* name;
  const char* description;
  std::vector<FlagGroup> groups;
  int (*run)(const Options&);  // returns the exit code; throws SetupError
};
std::vector<Subcommand> subcommands();

// The command line of the whole executable, with what the environment and `--config FILE.yaml` add to it. Used once.
class CommandLine {
 public:
  CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  // Fills options() and returns the subcommand that was asked for. Throws CLI::ParseError, also for --help and
  // --version, for app().exit() to print.
  const Subcommand& parse(int argc, const char* const* argv, const Environment& environment);
  const Options& options() const { return options_; }
  // After parse(): the values in force, and whether to print them and do nothing else.
  Configuration& configuration() { return *configuration_; }
  bool print_config() const { return print_config_; }
  CLI::App& app() { return app_; }

 private:
  void parse_arguments(int argc, const char* const* argv);
  CLI::App& command() { return *app_.get_subcommand(chosen_->name); }
  [[noreturn]] void refuse_unknown();
  void check_required();

  Options options_;
  const std::vector<Subcommand> subcommands_;
  const Subcommand* chosen_ = nullptr;
  std::string config_path_;
  bool print_config_ = false;
  CLI::App app_;
  std::unique_ptr<Configuration> configuration_;
};

}  // namespace spillway

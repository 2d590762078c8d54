#pragma once

#include <CLI/CLI.hpp>
#include <vector>

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

// The command line of the whole executable, `--config FILE.yaml` included. Used once.
class CommandLine {
 public:
  CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  // Fills options() and returns the subcommand that was asked for. Throws CLI::ParseError, also for --help and
  // --version, for app().exit() to print.
  const Subcommand& parse(int argc, const char* const* argv);
  const Options& options() const { return options_; }
  CLI::App& app() { return app_; }

 private:
  Options options_;
  const std::vector<Subcommand> subcommands_;
  const Subcommand* chosen_ = nullptr;
  CLI::App app_;
};

}  // namespace spillway

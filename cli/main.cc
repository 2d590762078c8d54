// The `spillway` executable: one subcommand per role and per question one may ask.
#include <cstdio>
#include <exception>
#include <string>

#include "cli/command_line.h"
#include "cli/supervisor.h"
#include "common/check.h"
#include "common/log.h"

namespace spillway {
namespace {

// The only place that reads the flags' variables: what is started from here gets its values as flags, and finds none.
Environment take_environment() {
  Environment ours = our_environment(environ);
  for (const auto& [name, value] : ours) ::unsetenv(name.c_str());
  return ours;
}

int run(int argc, char** argv) {
  const Environment environment = take_environment();
  CommandLine command_line;
  const Subcommand* command = nullptr;
  try {
    command = &command_line.parse(argc, argv, environment);
  } catch (const CLI::ParseError& error) {  // also --help and --version
    return command_line.app().exit(error) == 0 ? 0 : kExitCannotStart;
  }
  const std::vector<std::string> warnings = unknown_variables(command_line.app(), environment);
  if (command_line.print_config()) {
    for (const std::string& warning : warnings) std::fprintf(stderr, "spillway: warning: %s\n", warning.c_str());
    std::fputs(command_line.configuration().yaml().c_str(), stdout);
    return std::fflush(stdout) == 0 ? 0 : kExitFailed;
  }
  const Options& options = command_line.options();
  start_logging(options.name.empty() ? command->name : options.name, spdlog::level::from_str(options.log_level));
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  return command->run(options);
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  try {
    return spillway::run(argc, argv);
  } catch (const spillway::SetupError& error) {
    std::fprintf(stderr, "spillway: %s\n", error.what());
    return spillway::kExitCannotStart;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "spillway: unexpected: %s\n", error.what());
    return spillway::kExitFailed;
  }
}

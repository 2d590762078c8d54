// The `spillway` executable: one subcommand per role and per question one may ask.
#include <signal.h>

#include <cstdio>
#include <exception>
#include <string>

#include "cli/command_line.h"
#include "cli/exit_codes.h"
#include "cli/fit.h"
#include "cli/local_model.h"
#include "common/check.h"
#include "common/cpu_list.h"
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
  const Options& options = command_line.options();
  if (!command_line.print_config())
    start_logging(options.name.empty() ? command->name : options.name, spdlog::level::from_str(options.log_level),
                  log_format_of(options.log_format, command->stays));
  if (const CpuList cpus = cpus_of(options); !cpus.empty()) run_on(cpus);  // and all that comes from here
  if (options.fit) apply_fit(command_line.configuration(), options);
  const std::vector<std::string> warnings = unknown_variables(command_line.app(), environment);
  if (command_line.print_config()) {
    for (const std::string& warning : warnings) std::fprintf(stderr, "spillway: warning: %s\n", warning.c_str());
    std::fputs(command_line.configuration().yaml().c_str(), stdout);
    return std::fflush(stdout) == 0 ? 0 : kExitFailed;
  }
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  // A server outlives whoever reads its log; `run | head` ends as any such command.
  if (command->stays) ::signal(SIGPIPE, SIG_IGN);
  return command->run(options);
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  try {
    return spillway::run(argc, argv);
  } catch (const spillway::SetupError& error) {
    spillway::say_fatal(error.what());
    return spillway::kExitCannotStart;
  } catch (const std::exception& error) {
    spillway::say_fatal(std::string("unexpected: ") + error.what());
    return spillway::kExitFailed;
  }
}

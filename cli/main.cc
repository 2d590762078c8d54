// The `spillway` executable: one subcommand per role and per question one may ask.
#include <cstdio>
#include <exception>
#include <string>

#include "cli/command_line.h"
#include "cli/exit_codes.h"
#include "common/check.h"
#include "common/log.h"

namespace spillway {
namespace {

int run(int argc, char** argv) {
  CommandLine command_line;
  const Subcommand* command = nullptr;
  try {
    command = &command_line.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // also --help and --version
    return command_line.app().exit(error) == 0 ? 0 : kExitCannotStart;
  }
  const Options& options = command_line.options();
  start_logging(options.name.empty() ? command->name : options.name, spdlog::level::from_str(options.log_level));
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

// The `spillway` executable: one subcommand per role and per question one may ask.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "cli/bench_command.h"
#include "cli/doctor_command.h"
#include "cli/explain_command.h"
#include "cli/flags.h"
#include "cli/options.h"
#include "cli/run_command.h"
#include "cli/serve_command.h"
#include "cli/start_decode.h"
#include "cli/start_gateway.h"
#include "cli/start_prefill.h"
#include "cli/supervisor.h"
#include "cli/verify_command.h"
#include "common/check.h"
#include "common/log.h"

namespace spillway {
namespace {

struct Subcommand {
  const char* name;
  const char* description;
  std::vector<FlagGroup> groups;
  std::function<int(const Options&)> run;
};

std::vector<Subcommand> subcommands() {
  using enum FlagGroup;
  return {
      {"serve",
       "Serve a model: gateway, prefill and decode nodes on this machine",
       {kModel, kEngine, kHttp, kServe, kSecret, kFault},
       serve_command},
      {"gateway",
       "The HTTP API, the queue and the placement (started by serve)",
       {kModel, kEngine, kHttp, kNode, kSecret},
       start_gateway},
      {"prefill", "A node that computes prompts (started by serve)", {kModel, kEngine, kNode, kFault}, start_prefill},
      {"decode", "A node that continues them (started by serve)", {kModel, kEngine, kNode, kFault}, start_decode},
      {"run", "Answer one prompt in this process", {kModel, kEngine, kPrompt}, run_command},
      {"verify", "Prove that every way to compute gives the same bits", {kModel, kEngine, kVerify}, verify_command},
      {"explain",
       "Why K and V are cached: three ways to decode, really executed",
       {kModel, kEngine, kPrompt},
       explain_command},
      {"bench",
       "Speed of prefill and decode beside the machine's own limits",
       {kModel, kEngine, kReport},
       bench_command},
      {"doctor", "What this machine has and what of it is used", {kOptionalModel, kEngine, kServe}, doctor_command},
  };
}

int run(int argc, char** argv) {
  CLI::App app(
      "Spillway serves large language models with prefill and decode in separate processes.\n"
      "  spillway serve -m MODEL.gguf            then POST to http://127.0.0.1:8000/v1/chat/completions\n"
      "  spillway run -m MODEL.gguf --chat -p 'Why is the sky blue?'\n"
      "  spillway verify -m MODEL.gguf           same bits, whatever computed or moved the KV",
      "spillway");
  app.require_subcommand(1);
  app.set_version_flag("--version", "spillway 0.1.0");

  Options options;
  const std::vector<Subcommand> commands = subcommands();
  std::vector<const Subcommand*> chosen;
  for (const Subcommand& command : commands) {
    CLI::App* const sub = app.add_subcommand(command.name, command.description);
    add_flags(*sub, options, command.groups);
    sub->fallthrough();  // so that --config may follow the subcommand
    sub->callback([&chosen, &command] { chosen.push_back(&command); });
  }
  app.config_formatter(std::make_shared<YamlConfig>(argc > 1 ? argv[1] : ""));
  app.set_config("--config", "", "YAML file: a flat map of the subcommand's long flags; the command line wins");
  app.allow_config_extras(CLI::config_extras_mode::error);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // also --help and --version
    return app.exit(error) == 0 ? 0 : kExitCannotStart;
  }

  const std::string role = options.name.empty() ? chosen.front()->name : options.name;
  start_logging(role, spdlog::level::from_str(options.log_level));
  return chosen.front()->run(options);
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

#include "cli/command_line.h"

#include <memory>
#include <string>

#include "cli/bench_command.h"
#include "cli/doctor_command.h"
#include "cli/explain_command.h"
#include "cli/run_command.h"
#include "cli/serve_command.h"
#include "cli/start_decode.h"
#include "cli/start_gateway.h"
#include "cli/start_prefill.h"
#include "cli/verify_command.h"
#include "common/check.h"
#include "common/version.h"

namespace spillway {

std::vector<Subcommand> subcommands() {
  using enum FlagGroup;
  return {
      {"serve",
       "Serve a model: gateway, prefill and decode nodes on this machine",
       {kModel, kEngine, kModelLen, kKv, kBatch, kHttp, kServe, kSecret, kFault, kDrain},
       serve_command},
      {"gateway",
       "The HTTP API, the queue and the placement (started by serve)",
       {kModel, kModelLen, kHttp, kJoin, kStatus, kSecret, kDrain},
       start_gateway},
      {"prefill",
       "A node that computes prompts (started by serve)",
       {kModel, kEngine, kModelLen, kKv, kBatch, kJoin, kRunDir, kFault, kDrain},
       start_prefill},
      {"decode",
       "A node that continues them (started by serve)",
       {kModel, kEngine, kModelLen, kKv, kBatch, kJoin, kRunDir, kFault, kDrain},
       start_decode},
      {"run", "Answer one prompt in this process", {kModel, kEngine, kModelLen, kKv, kPrompt, kSampling}, run_command},
      {"verify",
       "Prove that every way to compute gives the same bits",
       {kModel, kEngine, kModelLen, kVerify},
       verify_command},
      {"explain",
       "Why K and V are cached: three ways to decode, really executed",
       {kModel, kEngine, kModelLen, kPrompt},
       explain_command},
      {"bench",
       "Speed of prefill and decode beside the machine's own limits",
       {kBench, kModel, kEngine, kReport},
       bench_command},
      {"doctor",
       "Whether serve would start here with these settings (--config as for serve)",
       {kOptionalModel, kEngine, kModelLen, kKv, kBatch, kHttp, kServe, kSecret, kDrain},
       doctor_command},
  };
}

CommandLine::CommandLine()
    : subcommands_(subcommands()),
      app_(
          "Spillway serves large language models with prefill and decode in separate processes.\n"
          "  spillway serve -m MODEL.gguf            then POST to http://127.0.0.1:8000/v1/chat/completions\n"
          "  spillway run -m MODEL.gguf --chat -p 'Why is the sky blue?'\n"
          "  spillway verify -m MODEL.gguf           same bits, whatever computed or moved the KV",
          "spillway") {
  app_.footer(
      "Exit codes: 0 done or drained, 1 failed, 2 cannot start, 3 stopped before all requests were finished,\n"
      "4 the gateway kept crashing (docs/operations.md)");
  app_.require_subcommand(1);
  app_.set_version_flag("--version", "spillway " + std::string(version()));
  for (const Subcommand& command : subcommands_) {
    CLI::App* const sub = app_.add_subcommand(command.name, command.description);
    add_flags(*sub, options_, command.groups);
    sub->fallthrough();  // so that --config may follow the subcommand
    sub->callback([this, &command] { chosen_ = &command; });
  }
  app_.config_formatter(std::make_shared<YamlConfig>(app_));
  app_.set_config("--config", "", "YAML file: a flat map of the subcommand's long flags; the command line wins");
  app_.allow_config_extras(CLI::config_extras_mode::error);
}

const Subcommand& CommandLine::parse(int argc, const char* const* argv) {
  app_.parse(argc, argv);
  CHECK(chosen_ != nullptr);  // require_subcommand
  return *chosen_;
}

}  // namespace spillway

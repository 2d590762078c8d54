#include "cli/command_line.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "cli/bench_command.h"
#include "cli/completion.h"
#include "cli/doctor_command.h"
#include "cli/explain_command.h"
#include "cli/nearest.h"
#include "cli/run_command.h"
#include "cli/serve_command.h"
#include "cli/start_decode.h"
#include "cli/start_gateway.h"
#include "cli/start_prefill.h"
#include "cli/verify_command.h"
#include "common/check.h"
#include "common/quote.h"
#include "common/version.h"

namespace spillway {
namespace {

CLI::ParseError refused(const std::string& why) { return {why, CLI::ExitCodes::ExtrasError}; }

constexpr char kFooter[] =
    "\n\nA flag may also be a variable (--max-model-len: SPILLWAY_MAX_MODEL_LEN) or a line of a --config file\n"
    "(max-model-len: 4096); the command line wins over the environment, and that over the file.\n"
    "Exit codes: 0 done or drained, 1 failed, 2 cannot start, 3 stopped before all requests were finished,\n"
    "4 the gateway kept crashing (docs/operations.md).";

}  // namespace

std::vector<Subcommand> subcommands() {
  using enum FlagGroup;
  return {
      {"serve",
       "Serve a model: gateway, prefill and decode nodes on this machine",
       {kModel, kEngine, kModelLen, kKv, kBatch, kGrowth, kHttp, kServe, kFit, kSecret, kFault, kDrain},
       serve_command,
       "  spillway serve -m MODEL.gguf\n"
       "  spillway serve -m MODEL.gguf --fit --print-config\n"
       "  spillway serve -m MODEL.gguf --prefill 0 --decode 1    # one process computes prompts and continues them\n"
       "  spillway serve -m MODEL.gguf --api-key-file keys --public-prefix-file prefixes.jsonl\n"
       "  spillway serve --config configs/two_by_two.yaml -m MODEL.gguf --port 9000",
       true},
      {"gateway",
       "The HTTP API, the queue and the placement (started by serve)",
       {kModel, kModelLen, kHttp, kJoin, kStatus, kSecret, kFault, kDrain},
       start_gateway,
       "  spillway gateway -m MODEL.gguf --gateway ipc:///tmp/gateway.sock",
       true},
      {"prefill",
       "A node that computes prompts (started by serve)",
       {kModel, kEngine, kModelLen, kKv, kBatch, kJoin, kRunDir, kFault, kDrain},
       start_prefill,
       "  spillway prefill -m MODEL.gguf --gateway ipc:///tmp/gateway.sock --run-dir /tmp/spillway",
       true},
      {"decode",
       "A node that continues them (started by serve)",
       {kModel, kEngine, kModelLen, kKv, kBatch, kGrowth, kColocate, kJoin, kRunDir, kFault, kDrain},
       start_decode,
       "  spillway decode -m MODEL.gguf --gateway ipc:///tmp/gateway.sock --run-dir /tmp/spillway --threads 2",
       true},
      {"run",
       "Answer one prompt in this process",
       {kModel, kEngine, kModelLen, kKv, kPrompt, kSampling},
       run_command,
       "  spillway run -m MODEL.gguf --chat -p 'Why is the sky blue?'\n"
       "  spillway run -m MODEL.gguf -p 'Once upon a time' --max-tokens 100 --temperature 0.8 --seed 7"},
      {"verify",
       "Prove that every way to compute gives the same bits",
       {kModel, kEngine, kModelLen, kVerify},
       verify_command,
       "  spillway verify -m MODEL.gguf\n"
       "  spillway verify -m MODEL.gguf --flip-bit    # must fail"},
      {"explain",
       "Why K and V are cached: three ways to decode, really executed",
       {kModel, kEngine, kModelLen, kPrompt},
       explain_command,
       "  spillway explain -m MODEL.gguf -p 'Once upon a time' --max-tokens 8"},
      {"bench",
       "Speed of prefill and decode beside the machine's own limits",
       {kBench, kModel, kEngine},
       bench_command,
       "  spillway bench engine -m MODEL.gguf\n"
       "  spillway bench engine -m MODEL.gguf -p 512,4096 -n 0 --batch 1 --format csv\n"
       "  spillway bench engine -m MODEL.gguf -p 0 -n 64 -d 0,4000 --threads 2"},
      {"doctor",
       "Whether serve would start here with these settings (--config as for serve)",
       {kOptionalModel, kEngine, kModelLen, kKv, kBatch, kGrowth, kHttp, kServe, kFit, kSecret, kFault, kDrain},
       doctor_command,
       "  spillway doctor -m MODEL.gguf\n"
       "  spillway doctor --config configs/two_by_two.yaml -m MODEL.gguf"},
      {"completion",
       "Completion of this command line for a shell",
       {kShell},
       completion_command,
       "  source <(spillway completion bash)\n"
       "  spillway completion zsh > ~/.zfunc/_spillway\n"
       "  spillway completion fish | source"},
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
  const auto add_config = [this](CLI::App& app) {
    app.option_defaults()->group("Configuration");
    return app.add_option("--config", config_path_, "YAML file: a flat map of this subcommand's long flags")
        ->type_name("FILE")
        ->configurable(false);
  };
  add_config(app_);
  for (const Subcommand& command : subcommands_) {
    CLI::App* const sub = app_.add_subcommand(command.name, command.description);
    add_flags(*sub, options_, command.groups);
    add_config(*sub);
    sub->add_flag("--print-config", print_config_,
                  "Print the configuration with the origin of each value; start nothing")
        ->configurable(false);
    sub->footer(std::string("Examples:\n") + command.examples + kFooter);
    sub->callback([this, &command] { chosen_ = &command; });
  }
}

void CommandLine::refuse_unknown() {
  for (const CLI::App* const app : app_.get_subcommands()) {
    const std::vector<std::string> left = app->remaining();
    if (left.empty()) continue;
    std::vector<std::string> names;
    for (const CLI::Option* const option : app->get_options())
      if (!option->get_lnames().empty()) names.push_back("--" + flag_of(*option));
    throw refused(fmt::format("{} takes no {}{}", app->get_name(), quote_foreign(left.front()),
                              did_you_mean(left.front().substr(0, left.front().find('=')), names)));
  }
  std::vector<std::string> names;
  for (const Subcommand& command : subcommands_) names.emplace_back(command.name);
  const std::vector<std::string> left = app_.remaining();
  if (left.empty()) throw refused(fmt::format("say what to do: {}", fmt::join(names, ", ")));
  throw refused(fmt::format("{} is no subcommand{}", quote_foreign(left.front()), did_you_mean(left.front(), names)));
}

// A required flag may also come from the environment or the file: checked once those were read.
void CommandLine::parse_arguments(int argc, const char* const* argv) {
  std::vector<CLI::Option*> required;
  for (CLI::App* const command : app_.get_subcommands([](CLI::App*) { return true; }))
    for (CLI::Option* const option : command->get_options())
      if (option->get_required()) required.push_back(option);
  const auto set_required = [&](bool on) {
    for (CLI::Option* const option : required) option->required(on);
  };
  set_required(false);
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    refuse_unknown();
  } catch (const CLI::RequiredError&) {  // of require_subcommand
    refuse_unknown();
  } catch (...) {
    set_required(true);  // --help shows it
    throw;
  }
  set_required(true);
}

void CommandLine::check_required() {
  for (const CLI::Option* const option : settings_of(command()))
    if (option->get_required() && !configuration_->given(flag_of(*option)))
      throw refused(fmt::format("{} needs --{} (or {}, or {}: in a --config file)", chosen_->name, flag_of(*option),
                                variable_of(flag_of(*option)), flag_of(*option)));
}

const Subcommand& CommandLine::parse(int argc, const char* const* argv, const Environment& environment) {
  parse_arguments(argc, argv);
  CHECK(chosen_ != nullptr);  // require_subcommand
  configuration_ = std::make_unique<Configuration>(command(), environment, config_path_);
  if (!print_config_ || options_.fit) check_required();
  return *chosen_;
}

}  // namespace spillway

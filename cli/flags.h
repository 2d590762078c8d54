#pragma once

#include <CLI/CLI.hpp>
#include <istream>
#include <string>
#include <vector>

#include "cli/options.h"

namespace spillway {

// Groups of flags that several subcommands share; each group is registered in one place.
enum class FlagGroup : uint8_t {
  kModel,
  kOptionalModel,
  kEngine,    // whoever computes: --threads, --isa, --cache-dir
  kModelLen,  // --max-model-len
  kKv,        // --device-memory, --chunk-tokens
  kBatch,     // --max-sequences
  kHttp,
  kStatus,  // what serve tells the gateway
  kJoin,    // what serve tells every child
  kRunDir,  // and those that move KV
  kServe,
  kBench,
  kPrompt,
  kSampling,
  kReport,
  kVerify,
  kFault,
  kDrain,  // --drain-timeout
  kSecret
};

// Adds the groups' flags to `command`, writing into `options`.
void add_flags(CLI::App& command, Options& options, const std::vector<FlagGroup>& groups);

// Reads `--config FILE.yaml`: a flat map whose keys are long flags of the subcommand being run. CLI11 keeps precedence
// (flag over file over default) and its checks; an unknown key is an error naming it.
class YamlConfig final : public CLI::Config {
 public:
  // `app` holds the subcommands; its command line is parsed before the file is read, wherever --config stands in it.
  explicit YamlConfig(const CLI::App& app) : app_(app) {}
  std::string to_config(const CLI::App* app, bool default_also, bool write_description,
                        std::string prefix) const override;
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;

 private:
  const CLI::App& app_;
};

}  // namespace spillway

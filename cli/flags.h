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
  kEngine,
  kHttp,
  kNode,
  kServe,
  kPrompt,
  kReport,
  kVerify,
  kFault,
  kSecret
};

// Adds the groups' flags to `command`, writing into `options`.
void add_flags(CLI::App& command, Options& options, const std::vector<FlagGroup>& groups);

// Reads `--config FILE.yaml`: a flat map whose keys are long flags of the subcommand being run. CLI11 keeps precedence
// (flag over file over default) and its checks; an unknown key is an error naming it.
class YamlConfig final : public CLI::Config {
 public:
  explicit YamlConfig(std::string subcommand) : subcommand_(std::move(subcommand)) {}
  std::string to_config(const CLI::App* app, bool default_also, bool write_description,
                        std::string prefix) const override;
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;

 private:
  std::string subcommand_;
};

}  // namespace spillway

#pragma once

#include <CLI/CLI.hpp>
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
  kJoin,    // what serve tells every child
  kRunDir,  // and those that move KV
  kServe,
  kBench,
  kPrompt,
  kSampling,
  kReport,
  kVerify,
  kFault,
  kSecret
};

// Adds the groups' flags to `command`, each under its group's title, writing into `options`.
void add_flags(CLI::App& command, Options& options, const std::vector<FlagGroup>& groups);

}  // namespace spillway

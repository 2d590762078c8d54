#pragma once

#include <CLI/CLI.hpp>
#include <vector>

#include "cli/options.h"

namespace spillway {

// Groups of flags that several subcommands share; each group is registered in one place.
enum class FlagGroup : uint8_t {
  kModel,
  kOptionalModel,
  kEngine,    // whoever computes: --threads, --isa, --activations, --kv-dtype, --cache-dir, --cache-max-bytes
  kModelLen,  // --max-model-len
  kKv,        // --device-memory, --chunk-tokens
  kBatch,     // --max-sequences
  kGrowth,    // --growth-margin, of decode nodes
  kColocate,  // --colocate, likewise
  kHttp,
  kStatus,  // what serve tells the gateway
  kJoin,    // what serve tells every child
  kRunDir,  // and those that move KV
  kServe,
  kFit,
  kBench,
  kPrompt,
  kSampling,
  kVerify,
  kFault,
  kDrain,  // --drain-timeout
  kSecret,
  kShell
};

// Adds the groups' flags to `command`, each under its group's title, writing into `options`.
void add_flags(CLI::App& command, Options& options, const std::vector<FlagGroup>& groups);

}  // namespace spillway

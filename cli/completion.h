#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/options.h"

namespace spillway {

// A script for `shell` (bash, zsh, fish) that completes the subcommands of `app`, their flags, enumerated values, files
// and folders. bash(1) "Programmable Completion", zshcompsys(1) `_arguments`, fish `complete`.
std::string completion_script(CLI::App& app, const std::string& shell);

// `spillway completion SHELL`: that script on stdout.
int completion_command(const Options& options);

}  // namespace spillway

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/command_line.h"

namespace spillway {

// A command line as `spillway ARGUMENTS` in `environment`. Throws CLI::ParseError as CommandLine does.
struct Parsed {
  std::unique_ptr<CommandLine> command_line;
  std::string command;
  Options options;
};

inline Parsed parse(std::vector<std::string> arguments, const Environment& environment = {}) {
  arguments.insert(arguments.begin(), "spillway");
  std::vector<const char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(argument.c_str());
  auto line = std::make_unique<CommandLine>();
  const std::string command = line->parse(static_cast<int>(pointers.size()), pointers.data(), environment).name;
  const Options options = line->options();
  return {std::move(line), command, options};
}

// What CommandLine says of it, "" where it is taken.
inline std::string refusal(const std::vector<std::string>& arguments, const Environment& environment = {}) try {
  (void)parse(arguments, environment);
  return "";
} catch (const CLI::ParseError& error) {
  return error.what();
}

}  // namespace spillway

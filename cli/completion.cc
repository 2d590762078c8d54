#include "cli/completion.h"

#include <fmt/format.h>

#include <cstdio>
#include <vector>

#include "cli/command_line.h"
#include "cli/supervisor.h"

namespace spillway {
namespace {

enum class Wants : uint8_t { kNothing, kChoice, kFile, kFolder, kOther };

struct Flag {
  std::vector<std::string> names;  // "--model", "-m"; none: a positional
  std::string description;
  Wants wants = Wants::kOther;
  std::string choices;  // separated by blanks
};

// Without what any of the shells would read as more than text.
std::string plain(std::string text) {
  for (char& c : text)
    if (c == '\'' || c == '[' || c == ']' || c == ':') c = ' ';
  return text;
}

// CLI11 describes an enumeration as "TEXT:{a,b}".
Flag flag_from(const CLI::Option& option) {
  Flag flag;
  for (const std::string& name : option.get_lnames()) flag.names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
  flag.description = plain(option.get_description());
  const std::string type = option.get_type_name();
  const size_t open = type.find('{'), close = type.find('}');
  if (option.get_items_expected_max() == 0)
    flag.wants = Wants::kNothing;
  else if (type.starts_with("FILE"))
    flag.wants = Wants::kFile;
  else if (type.starts_with("DIR"))
    flag.wants = Wants::kFolder;
  else if (open != type.npos && close != type.npos) {
    flag.wants = Wants::kChoice;
    for (const char c : type.substr(open + 1, close - open - 1)) flag.choices += c == ',' ? ' ' : c;
  }
  return flag;
}

struct Command {
  std::string name, description;
  std::vector<Flag> flags;
};

Command command_from(const CLI::App& app) {
  Command command{app.get_name(), plain(app.get_description()), {}};
  for (const CLI::Option* const option : app.get_options()) command.flags.push_back(flag_from(*option));
  return command;
}

std::string words_of(const Command& command) {
  std::vector<std::string> words;
  for (const Flag& flag : command.flags)
    if (flag.names.empty())
      words.push_back(flag.choices);
    else
      words.push_back(flag.names.front());
  return fmt::format("{}", fmt::join(words, " "));
}

std::string names_of(const std::vector<Command>& commands, const char* separator) {
  std::vector<std::string> names;
  for (const Command& command : commands) names.push_back(command.name);
  return fmt::format("{}", fmt::join(names, separator));
}

std::string bash_case(const std::string& command, const Flag& flag) {
  std::vector<std::string> patterns;
  for (const std::string& name : flag.names) patterns.push_back(command + ":" + name);
  std::string action = "return";
  if (flag.wants == Wants::kChoice) action = "words=\"" + flag.choices + "\"";
  if (flag.wants == Wants::kFile) action = "mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return";
  if (flag.wants == Wants::kFolder) action = "mapfile -t COMPREPLY < <(compgen -d -- \"$cur\"); return";
  return fmt::format("    {}) {} ;;\n", fmt::join(patterns, "|"), action);
}

std::string bash_script(const Command& top, const std::vector<Command>& commands) {
  std::string values, flags;
  for (const Command& command : commands) {
    for (const Flag& flag : command.flags)
      if (!flag.names.empty() && flag.wants != Wants::kNothing) values += bash_case(command.name, flag);
    flags += fmt::format("      {}) words=\"{}\" ;;\n", command.name, words_of(command));
  }
  return fmt::format(R"(# bash completion of spillway; load with: source <(spillway completion bash)
_spillway() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command="" words="" word
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case $word in {}) command=$word; break ;; esac
  done
  case $command:$prev in
    :--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
{}  esac
  if [[ -z $words ]]; then
    case $command in
{}      *) words="{} {}" ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}}
complete -o filenames -F _spillway spillway
)",
                     names_of(commands, "|"), values, flags, names_of(commands, " "), words_of(top));
}

std::string zsh_argument(const Flag& flag) {
  std::string value;
  if (flag.wants == Wants::kChoice) value = ":value:(" + flag.choices + ")";
  if (flag.wants == Wants::kFile) value = ":file:_files";
  if (flag.wants == Wants::kFolder) value = ":folder:_files -/";
  if (flag.wants == Wants::kOther) value = ":value: ";
  if (flag.names.empty()) return fmt::format(" '1{}'", value);
  std::string text;
  for (const std::string& name : flag.names) text += fmt::format(" '*{}[{}]{}'", name, flag.description, value);
  return text;
}

std::string zsh_script(const std::vector<Command>& commands) {
  std::string described, cases;
  for (const Command& command : commands) {
    std::string arguments;
    for (const Flag& flag : command.flags) arguments += zsh_argument(flag);
    described += fmt::format(" '{}'", command.name);
    cases += fmt::format("    {}) _arguments{} ;;\n", command.name, arguments);
  }
  return fmt::format(R"(#compdef spillway
# zsh completion of spillway: a file _spillway in a folder of $fpath
_spillway() {{
  if (( CURRENT == 2 )); then
    compadd --{} --help --version
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{}  esac
}}
# A file of $fpath is read when it is first called; where it is sourced it is only made known.
[[ $funcstack[1] == _spillway ]] && _spillway "$@" || compdef _spillway spillway
)",
                     described, cases);
}

std::string fish_script(const std::vector<Command>& commands) {
  std::string text =
      "# fish completion of spillway; load with: spillway completion fish | source\n"
      "complete -c spillway -f\n";
  for (const Command& command : commands) {
    text +=
        fmt::format("complete -c spillway -n __fish_use_subcommand -a {} -d '{}'\n", command.name, command.description);
    for (const Flag& flag : command.flags) {
      text += fmt::format("complete -c spillway -n '__fish_seen_subcommand_from {}'", command.name);
      for (const std::string& name : flag.names)
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (flag.wants == Wants::kChoice) text += fmt::format(" -x -a '{}'", flag.choices);
      if (flag.wants == Wants::kFile) text += " -r -F";
      if (flag.wants == Wants::kFolder) text += " -x -a '(__fish_complete_directories)'";
      if (flag.wants == Wants::kOther) text += " -x";
      text += fmt::format(" -d '{}'\n", flag.description);
    }
  }
  return text;
}

}  // namespace

std::string completion_script(CLI::App& app, const std::string& shell) {
  std::vector<Command> commands;
  for (const CLI::App* const command : app.get_subcommands([](CLI::App*) { return true; }))
    commands.push_back(command_from(*command));
  if (shell == "zsh") return zsh_script(commands);
  if (shell == "fish") return fish_script(commands);
  return bash_script(command_from(app), commands);
}

int completion_command(const Options& options) {
  CommandLine command_line;
  std::fputs(completion_script(command_line.app(), options.shell).c_str(), stdout);
  return std::fflush(stdout) == 0 ? 0 : kExitFailed;
}

}  // namespace spillway

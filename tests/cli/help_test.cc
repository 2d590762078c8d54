// The help and what is made from the same flags: examples that parse, the table of docs/configuration.md, and the
// completion of a real bash.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "cli/completion.h"
#include "common/check.h"
#include "parsed.h"

namespace spillway {
namespace {

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::string word;
  bool quoted = false;
  for (const char c : line + ' ') {
    if (c == '\'') quoted = !quoted;
    if (c == '#' && word.empty()) break;
    if (c != '\'' && (c != ' ' || quoted)) word += c;
    if (c == ' ' && !quoted && !word.empty()) words.push_back(std::exchange(word, ""));
  }
  return words;
}

TEST(Help, EveryExampleParses) {
  size_t examples = 0;
  for (const Subcommand& command : subcommands()) {
    if (command.name == std::string("completion")) continue;  // pipes of a shell
    std::istringstream lines(command.examples);
    for (std::string line; std::getline(lines, line); ++examples) {
      std::vector<std::string> words = words_of(line);
      ASSERT_GT(words.size(), 2u) << line;
      ASSERT_EQ(words.front(), "spillway") << line;
      words.erase(words.begin());
      EXPECT_EQ(words.front(), command.name) << line;
      for (std::string& word : words) {
        if (word == "MODEL.gguf") word = SPILLWAY_CONFIGS "/one_machine.yaml";  // a file that is there
        if (word.starts_with("configs/")) word = SPILLWAY_CONFIGS + word.substr(7);
      }
      EXPECT_EQ(refusal(words), "") << line;
    }
  }
  EXPECT_GE(examples, 13u);
}

TEST(Help, GroupsFlagsAndTellsOfTheOtherLayersAndTheExitCodes) {
  CommandLine command_line;
  for (CLI::App* const command : command_line.app().get_subcommands([](CLI::App*) { return true; })) {
    const std::string help = command->help();
    for (const char* part : {"Examples:", "SPILLWAY_MAX_MODEL_LEN", "--config", "Exit codes: 0", "\nLog:"})
      EXPECT_NE(help.find(part), std::string::npos) << part << " in " << help;
  }
}

// The table that docs/configuration.md must hold; on failure it is printed, to be pasted.
TEST(Help, TheTableOfFlagsInTheDocumentIsCurrent) {
  CommandLine command_line;
  const CLI::App& serve = *command_line.app().get_subcommand("serve");
  std::string table = "| flag of `serve` | default | what |\n|---|---|---|\n", group;
  for (const CLI::Option* const option : serve.get_options()) {
    if (option->get_lnames().empty() || option->get_group() == "Options" || option->get_group() == "Tests") continue;
    if (option->get_group() != group) table += fmt::format("| **{}** | | |\n", group = option->get_group());
    table +=
        fmt::format("| `--{}` | {} | {} |\n", flag_of(*option),
                    option->get_items_expected_max() == 0 ? "" : option->get_default_str(), option->get_description());
  }
  std::ifstream file(SPILLWAY_DOCS "/configuration.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  EXPECT_NE(page.find(table), std::string::npos) << "docs/configuration.md should hold:\n" << table;
}

class BashCompletion : public testing::Test {
 protected:
  void SetUp() override {
    CommandLine command_line;
    std::ofstream(script_) << completion_script(command_line.app(), "bash");
  }
  void TearDown() override { std::filesystem::remove(script_); }
  // What a real bash offers for the last of `words`, blanks between.
  std::string complete(const std::string& words, size_t count) {
    const std::string command =
        fmt::format("bash -c 'source {} && COMP_WORDS=({}) COMP_CWORD={} && _spillway && echo \"${{COMPREPLY[*]}}\"'",
                    script_, words, count - 1);
    FILE* const pipe = ::popen(command.c_str(), "r");
    CHECK(pipe != nullptr);
    std::string text(1 << 16, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), pipe));
    EXPECT_EQ(::pclose(pipe), 0) << command;
    if (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }
  const std::string script_ = testing::TempDir() + "/spillway-completion-" + std::to_string(::getpid());
};

TEST_F(BashCompletion, OffersSubcommandsFlagsValuesAndFiles) {
  EXPECT_EQ(complete("spillway ex", 2), "explain");
  EXPECT_EQ(complete("spillway serve --max-m", 3), "--max-model-len");
  EXPECT_EQ(complete("spillway serve --isa \"\"", 4), "auto scalar avx2 avx512bf16");
  EXPECT_EQ(complete("spillway --config x serve --isa sc", 6), "scalar");
  EXPECT_EQ(complete("spillway serve -m " SPILLWAY_CONFIGS "/one", 4), SPILLWAY_CONFIGS "/one_machine.yaml");
  EXPECT_EQ(complete("spillway serve --cache-dir " SPILLWAY_CONFIGS "/one", 4), "");  // a file is no folder
  EXPECT_EQ(complete("spillway run --host", 3), "");                                  // not a flag of run
  EXPECT_EQ(complete("spillway serve --port \"\"", 4), "");
  EXPECT_EQ(complete("spillway completion f", 3), "fish");
}

// As compinit does it: a file of $fpath, of which nothing is read before the first TAB.
TEST(ZshCompletion, TheFirstCallOfTheAutoloadedFileCompletes) {
  if (std::system("command -v zsh >/dev/null") != 0) GTEST_SKIP() << "no zsh here (apt-get install zsh)";
  const std::filesystem::path folder = testing::TempDir() + "/spillway-zsh-" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  CommandLine command_line;
  std::ofstream(folder / "_spillway") << completion_script(command_line.app(), "zsh");
  const std::string script = fmt::format(
      "fpath=({0}); compdef() {{ echo made known; }}; compadd() {{ print -- $@; }}; autoload -Uz _spillway; CURRENT=2; "
      "words=(spillway s); _spillway >{0}/first; source {0}/_spillway >{0}/sourced",
      folder.string());
  EXPECT_EQ(std::system(fmt::format("zsh -f -c '{}'", script).c_str()), 0);
  const auto said = [&](const char* file) {
    std::ifstream text(folder / file);
    return std::string{std::istreambuf_iterator<char>(text), {}};
  };
  EXPECT_TRUE(said("first").starts_with("-- ")) << said("first");
  EXPECT_NE(said("first").find(" serve "), std::string::npos) << said("first");
  EXPECT_EQ(said("sourced"), "made known\n");
  std::filesystem::remove_all(folder);
}

TEST(Completion, EveryShellKnowsEverySubcommandAndFlag) {
  CommandLine command_line;
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(command_line.app(), shell);
    for (CLI::App* const command : command_line.app().get_subcommands([](CLI::App*) { return true; })) {
      EXPECT_NE(script.find(command->get_name()), std::string::npos) << shell;
      for (const CLI::Option* const option : settings_of(*command))
        EXPECT_NE(script.find((shell == "fish" ? "-l " : "--") + flag_of(*option)), std::string::npos) << shell;
    }
  }
}

}  // namespace
}  // namespace spillway

// Who wins among command line, environment, file and default, and that each value and each error says where it is from.
#include "cli/configuration.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "parsed.h"

namespace spillway {
namespace {

using testing::TempDir;

class ConfigurationTest : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = TempDir() + "/spillway-layers-" + std::to_string(::getpid()) + ".yaml";
};

// Every subset of {file, environment, command line} that sets --queue-max.
TEST_F(ConfigurationTest, TheCommandLineWinsOverTheEnvironmentOverTheFileOverTheDefault) {
  for (unsigned layers = 0; layers < 8; ++layers) {
    std::vector<std::string> arguments{"doctor"};
    Environment environment;
    uint32_t value = Options{}.queue_max;
    std::string origin = "default";
    if (layers & 1) {
      arguments.insert(arguments.end(), {"--config", write("queue-max: 11\n")});
      value = 11, origin = "--config " + path_;
    }
    if (layers & 2) {
      environment["SPILLWAY_QUEUE_MAX"] = "22";
      value = 22, origin = "SPILLWAY_QUEUE_MAX";
    }
    if (layers & 4) {
      arguments.insert(arguments.end(), {"--queue-max", "33"});
      value = 33, origin = "flag";
    }
    const Parsed parsed = parse(arguments, environment);
    EXPECT_EQ(parsed.options.queue_max, value) << layers;
    EXPECT_EQ(parsed.command_line->configuration().origin("queue-max"), origin) << layers;
  }
}

// Whatever its type: each setting of each subcommand can come from its variable, and says so.
TEST_F(ConfigurationTest, EverySettingHasAVariable) {
  const std::map<std::string, std::string> odd{{"model", SPILLWAY_CONFIGS "/one_machine.yaml"},
                                               {"run-dir", "/tmp"},
                                               {"gateway", "ipc:///tmp/gateway.sock"},
                                               {"isa", "scalar"},
                                               {"activations", "int8"},
                                               {"kv-dtype", "int8"},
                                               {"format", "json"},
                                               {"log-level", "error"},
                                               {"log-format", "text"},
                                               {"chat", "true"},
                                               {"flip-bit", "true"},
                                               {"fit", "true"},
                                               {"insecure", "true"},
                                               {"colocate", "true"}};
  size_t settings = 0;
  for (const Subcommand& command : subcommands()) {
    if (command.name == std::string("completion")) continue;  // its shell is an argument
    Parsed defaults = parse({command.name, "--print-config"});
    for (const CLI::Option* option : settings_of(*defaults.command_line->app().get_subcommand(command.name))) {
      const std::string flag = flag_of(*option);
      Environment environment{{"SPILLWAY_MODEL", odd.at("model")}};
      environment[variable_of(flag)] = odd.contains(flag) ? odd.at(flag) : "2";
      const Parsed parsed = parse({command.name, "--print-config"}, environment);
      EXPECT_EQ(parsed.command_line->configuration().origin(flag), variable_of(flag)) << command.name;
      EXPECT_NE(parsed.command_line->configuration().yaml(), defaults.command_line->configuration().yaml()) << flag;
      ++settings;
    }
  }
  EXPECT_GT(settings, 80u);
}

TEST_F(ConfigurationTest, ARequiredFlagMayComeFromAnyLayer) {
  const std::string model = SPILLWAY_CONFIGS "/one_machine.yaml";
  EXPECT_EQ(refusal({"serve"}), "serve needs --model (or SPILLWAY_MODEL, or model: in a --config file)");
  EXPECT_EQ(refusal({"serve"}, {{"SPILLWAY_MODEL", model}}), "");
  EXPECT_EQ(refusal({"serve", "--config", write("model: " + model)}), "");
  EXPECT_EQ(refusal({"serve"}, {{"SPILLWAY_CONFIG", path_}}), "");
}

TEST_F(ConfigurationTest, ListsAndSwitchesComeFromTheEnvironmentToo) {
  EXPECT_EQ(parse({"doctor"}, {{"SPILLWAY_SERVED_MODEL_NAME", "a,b"}}).options.served_names,
            (std::vector<std::string>{"a", "b"}));
  const std::vector<std::string> chat{"run", "--print-config", "--config", write("chat: true")};
  EXPECT_TRUE(parse(chat).options.chat);
  EXPECT_FALSE(parse(chat, {{"SPILLWAY_CHAT", "false"}}).options.chat);
}

TEST_F(ConfigurationTest, ABadValueNamesWhereItIsFrom) {
  const auto has = [](const std::string& text, const std::string& part) { return text.find(part) != text.npos; };
  const std::string variable = refusal({"doctor"}, {{"SPILLWAY_PORT", "eighty"}});
  EXPECT_TRUE(has(variable, "SPILLWAY_PORT: ") && has(variable, "eighty")) << variable;
  const std::string file = refusal({"doctor", "--config", write("host: a\nport: 70000\n")});
  EXPECT_TRUE(has(file, "--config " + path_ + ", line 2: port: ") && has(file, "70000")) << file;
  EXPECT_EQ(refusal({"doctor", "--config", write("prot: 1\n")}),
            "--config " + path_ + ", line 1: \"prot\" is no flag of doctor; did you mean port?");
  // Only a command line arms a fault point.
  const std::string armed =
      refusal({"serve", "--config", write("model: " SPILLWAY_CONFIGS "/one_machine.yaml\nfault: gateway-token\n")});
  EXPECT_TRUE(has(armed, "line 2: \"fault\" is no flag of serve")) << armed;
  EXPECT_TRUE(parse({"serve", "-m", SPILLWAY_CONFIGS "/one_machine.yaml"}, {{"SPILLWAY_FAULT", "gateway-token"}})
                  .options.faults.empty());
  EXPECT_TRUE(
      has(refusal({"run", "--print-config"}, {{"SPILLWAY_CHAT", "yes"}}), "SPILLWAY_CHAT: takes true or false"));
  const std::string absent = refusal({"doctor", "--config", path_ + ".absent"});
  EXPECT_TRUE(has(absent, path_ + ".absent: cannot open: No such file")) << absent;
  EXPECT_TRUE(has(refusal({"doctor", "--config", TempDir()}), "a folder, not a file"));
}

TEST_F(ConfigurationTest, ByDefaultItListensOnThisMachineOnly) {
  const std::string printed = parse({"serve", "--print-config"}, {}).command_line->configuration().yaml();
  for (const char* const line : {"host: 127.0.0.1  # default\n", "port: 8000  # default\n"})
    EXPECT_NE(printed.find(line), std::string::npos) << line << printed;
}

TEST_F(ConfigurationTest, WhatItPrintsItTakesBack) {
  const Environment environment{{"SPILLWAY_HOST", "::1"}, {"SPILLWAY_API_KEY_FILE", "a: b # c"}};
  // Sizes that were given print as bytes, defaults with their unit: so both are given.
  Parsed first = parse({"doctor", "--port", "1", "--served-model-name", "*", "--device-memory", "2GiB",
                        "--cache-max-bytes", "1GiB", "--served-model-name", "a,b", "--print-config"},
                       environment);
  EXPECT_TRUE(first.command_line->print_config());
  const std::string printed = first.command_line->configuration().yaml();
  EXPECT_NE(printed.find("port: 1  # flag\n"), std::string::npos) << printed;
  EXPECT_NE(printed.find("queue-max: 64  # default\n"), std::string::npos) << printed;
  EXPECT_NE(printed.find("# SPILLWAY_HOST\n"), std::string::npos) << printed;
  Parsed second = parse({"doctor", "--config", write(printed)});
  EXPECT_EQ(second.options.host, "::1");
  EXPECT_EQ(second.options.api_key_file, "a: b # c");
  EXPECT_EQ(second.options.served_names, (std::vector<std::string>{"*", "a,b"}));
  EXPECT_EQ(second.options.device_memory, uint64_t{2} << 30);
  EXPECT_EQ(second.options.cache_max_bytes, uint64_t{1} << 30);
  std::istringstream before(printed), after(second.command_line->configuration().yaml());
  for (std::string a, b; std::getline(before, a);) {
    ASSERT_TRUE(std::getline(after, b));
    EXPECT_EQ(a.substr(0, a.find("  # ")), b.substr(0, b.find("  # ")));
  }
}

TEST_F(ConfigurationTest, TheEnvironmentOfOthersIsLeftAloneAndAnEmptyVariableIsNotSet) {
  const std::array<const char*, 5> entries{"PATH=/bin", "SPILLWAY_PORT=", "SPILLWAY_HOST=a=b", "SPILLWAY", nullptr};
  EXPECT_EQ(our_environment(entries.data()), (Environment{{"SPILLWAY_HOST", "a=b"}}));
}

TEST_F(ConfigurationTest, AVariableThatIsNoFlagIsNamedWithTheNearest) {
  CommandLine command_line;
  EXPECT_EQ(unknown_variables(command_line.app(),
                              {{"SPILLWAY_PORT", "1"}, {"SPILLWAY_CONFIG", "x"}, {"SPILLWAY_MAX_MODEL_LNE", "2"}}),
            std::vector<std::string>{"\"SPILLWAY_MAX_MODEL_LNE\" is no flag of any subcommand and is ignored; did you "
                                     "mean SPILLWAY_MAX_MODEL_LEN?"});
}

TEST_F(ConfigurationTest, ATypoIsAnsweredWithTheNearestName) {
  EXPECT_EQ(refusal({"serve", "--prot", "1"}), "serve takes no \"--prot\"; did you mean --port?");
  EXPECT_EQ(refusal({"serve", "--prot=1"}), "serve takes no \"--prot=1\"; did you mean --port?");
  EXPECT_EQ(refusal({"serv"}), "\"serv\" is no subcommand; did you mean serve?");
  EXPECT_EQ(refusal({"xyzzy"}), "\"xyzzy\" is no subcommand");
  EXPECT_EQ(refusal({}).substr(0, 28), "say what to do: serve, gatew");
}

TEST_F(ConfigurationTest, ListsHaveABound) {
  std::vector<std::string> arguments{"doctor"};
  for (int i = 0; i < 64; ++i) arguments.insert(arguments.end(), {"--served-model-name", fmt::format("n{}", i)});
  EXPECT_EQ(refusal(arguments), "");
  arguments.insert(arguments.end(), {"--served-model-name", "one-more"});
  EXPECT_NE(refusal(arguments), "");
  std::string many = "a";
  for (int i = 0; i < 64; ++i) many += ",a";
  EXPECT_NE(refusal({"doctor"}, {{"SPILLWAY_SERVED_MODEL_NAME", many}}), "");
}

}  // namespace
}  // namespace spillway

// The command line of the whole executable: which flags each subcommand takes, their bounds, and the config file.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "cli/command_line.h"
#include "parsed.h"

namespace spillway {
namespace {

class FlagsWithFile : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = testing::TempDir() + "/spillway-config-" + std::to_string(::getpid()) + ".yaml";
  const std::string model_ = path_;  // any file that is there
};

using ConfigFile = FlagsWithFile;

std::set<std::string> words(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), {}};
}

TEST(Flags, EverySubcommandTakesExactlyWhatItReads) {
  const std::string model =
      "model threads threads-max cpus isa activations kv-dtype cache-dir cache-max-bytes max-model-len "
      "log-format log-level ";
  const std::string engine = model + "device-memory chunk-tokens max-sequences ";
  const std::string http =
      "host port served-model-name api-key-file public-prefix-file tls-cert tls-key insecure queue-max secret-file ";
  const std::string serve =
      engine + http +
      "growth-margin prefill decode prefill-threads decode-threads prefill-cpus decode-cpus decode-nice gateway "
      "drain-timeout restart-delay restart-delay-max ";
  const std::string child = "gateway name ready-fd packed-fd fault drain-timeout ";
  const std::map<std::string, std::set<std::string>> expected{
      {"serve", words(serve + "fit fault")},
      {"gateway", words(http + child + "model max-model-len status-socket log-format log-level")},
      {"prefill", words(engine + child + "run-dir")},
      {"decode", words(engine + child + "run-dir growth-margin colocate")},
      {"run", words(model + "device-memory chunk-tokens prompt max-tokens chat temperature seed")},
      {"verify", words(model + "max-tokens flip-bit")},
      {"explain", words(model + "prompt max-tokens chat")},
      {"bench", words("what model threads threads-max cpus isa activations kv-dtype cache-dir cache-max-bytes "
                      "prompt-tokens generate-tokens depth batch format repetitions "
                      "log-format log-level")},
      {"doctor", words(serve + "fit fault")},
      {"completion", words("shell log-format log-level")},
  };
  CommandLine command_line;
  std::map<std::string, std::set<std::string>> found;
  for (const CLI::App* command : command_line.app().get_subcommands([](CLI::App*) { return true; }))
    for (const CLI::Option* option : command->get_options())
      if (option != command->get_help_ptr() && option->get_group() != "Configuration")
        found[command->get_name()].insert(option->get_single_name());
  EXPECT_EQ(found, expected);
}

TEST_F(ConfigFile, AFlagWinsOverTheFileAndTheFileOverTheDefault) {
  const std::string file = write("port: 9000\nqueue-max: 7\nserved-model-name: [a, b]\n");
  const Options options = parse({"serve", "--config", file, "-m", model_, "--port", "9001"}).options;
  EXPECT_EQ(options.port, 9001);
  EXPECT_EQ(options.queue_max, 7u);
  EXPECT_EQ(options.max_sequences, Options{}.max_sequences);
  EXPECT_EQ(options.served_names, (std::vector<std::string>{"a", "b"}));
}

TEST_F(ConfigFile, IsReadWhereverItStandsInTheCommandLine) {
  const std::string file = write("max-model-len: 77\nmodel: " + model_ + "\n");
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--config", file, "decode", "--gateway", "ipc://x", "--run-dir", "/tmp"},
        {"decode", "--gateway", "ipc://x", "--config", file, "--run-dir", "/tmp"},
        {"decode", "--gateway", "ipc://x", "--run-dir", "/tmp", "--config=" + file}}) {
    const Parsed parsed = parse(arguments);
    EXPECT_EQ(parsed.command, "decode");
    EXPECT_EQ(parsed.options.max_model_len, 77u);
    EXPECT_EQ(parsed.options.model, model_);
  }
}

TEST_F(ConfigFile, WhatIsNotAMapOfThisSubcommandsFlagsIsRefused) {
  for (const char* text : {"- a\n- b\n", "port: {a: 1}\n", "port: [1\n", "port: [[1]]\n", "[a]: 1\n", "{a: 1}: 1\n",
                           "no-such-flag: 1\n", "run-dir: /tmp\n", "port: 70000\n"})
    EXPECT_THROW(parse({"serve", "-m", model_, "--config", write(text)}), CLI::ParseError) << text;
  EXPECT_THROW(parse({"serve", "-m", model_, "--config", path_ + ".absent"}), CLI::ParseError);
  EXPECT_THROW(parse({"--config", write("port: 1\n")}), CLI::ParseError);
}

TEST_F(ConfigFile, EveryExampleIsOneOfServe) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SPILLWAY_CONFIGS)) {
    const Parsed parsed = parse({"serve", "--config", entry.path(), "-m", write("")});
    EXPECT_EQ(parsed.options.max_model_len, 4096u) << entry.path();  // from the file: the default is 0
    ++files;
  }
  EXPECT_GE(files, 2u);
}

TEST_F(FlagsWithFile, ValuesOutsideTheirBoundsAreRefused) {
  const std::string model = write("");
  for (const std::vector<std::string>& flag : {std::vector<std::string>{"--max-sequences", "0"},
                                               {"--queue-max", "1.5"},
                                               {"--isa", "sse9"},
                                               {"--kv-dtype", "int4"},
                                               {"--port", "70000"}})
    EXPECT_THROW(parse({"serve", "-m", model, flag[0], flag[1]}), CLI::ParseError) << flag[0];
}

TEST_F(FlagsWithFile, ANodeJoinsUpToEightGatewaysOfThisMachineAndOneIsBound) {
  const std::string model = write("");
  std::vector<std::string> node{"decode", "-m", model, "--run-dir", "/tmp"};
  std::vector<std::string> endpoints;
  for (int count = 1; count <= 8; ++count) {
    endpoints.push_back("tcp://127.0.0.1:" + std::to_string(count));
    node.insert(node.end(), {"--gateway", endpoints.back()});
    EXPECT_EQ(parse(node).options.gateway_endpoints, endpoints);
  }
  node.insert(node.end(), {"--gateway", "ipc://x"});
  EXPECT_THROW(parse(node), CLI::ParseError);
  EXPECT_EQ(parse({"serve", "-m", model, "--gateway", "ipc://x"}).options.gateway_endpoints,
            std::vector<std::string>{"ipc://x"});
  EXPECT_THROW(parse({"serve", "-m", model, "--gateway", "ipc://x", "--gateway", "ipc://y"}), CLI::ParseError);
  EXPECT_THROW(parse({"gateway", "-m", model, "--gateway", "tcp://0.0.0.0:5"}), CLI::ParseError);
  EXPECT_THROW(parse({"decode", "-m", model, "--run-dir", "/tmp", "--gateway", "tcp://10.0.0.1:5"}), CLI::ParseError);
}

TEST_F(FlagsWithFile, NamesOfTheModelAreRepeatableAndPrintable) {
  const std::string model = write("");
  const std::string flag = "--served-model-name";
  EXPECT_EQ(parse({"serve", "-m", model, flag, "a", flag, "org/b", flag, "*"}).options.served_names,
            (std::vector<std::string>{"a", "org/b", "*"}));
  for (const std::string& name : {std::string(""), std::string("a b"), std::string("a\n"), std::string(129, 'a')})
    EXPECT_THROW(parse({"serve", "-m", model, flag, name}), CLI::ParseError) << name;
}

TEST_F(FlagsWithFile, SizesHaveUnits) {
  EXPECT_EQ(parse({"serve", "-m", write(""), "--device-memory", "2GiB"}).options.device_memory, uint64_t{2} << 30);
}

TEST_F(FlagsWithFile, BenchMeasuresTheEngineWhetherNamedOrNot) {
  const std::string model = write("");
  EXPECT_EQ(parse({"bench", "engine", "-m", model}).options.bench, "engine");
  EXPECT_EQ(parse({"bench", "-m", model}).options.bench, "engine");
  EXPECT_THROW(parse({"bench", "weather", "-m", model}), CLI::ParseError);
}

}  // namespace
}  // namespace spillway

#include "cli/flags.h"

#include <gtest/gtest.h>

#include <memory>
#include <sstream>

namespace spillway {
namespace {

std::vector<CLI::ConfigItem> parse_yaml(const std::string& text) {
  std::istringstream input(text);
  return YamlConfig("serve").from_config(input);
}

TEST(YamlConfig, KeysAreLongFlagsOfTheSubcommand) {
  const auto items = parse_yaml("port: 9000\nfault: [decode-step, prefill-step]\n");
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].fullname(), "serve.port");
  EXPECT_EQ(items[0].inputs, std::vector<std::string>{"9000"});
  EXPECT_EQ(items[1].inputs.size(), 2u);
}

TEST(YamlConfig, RefusesWhatIsNotAMapOfValues) {
  EXPECT_THROW(parse_yaml("- a\n- b\n"), CLI::ConversionError);
  EXPECT_THROW(parse_yaml("port: {a: 1}\n"), CLI::ConversionError);
  EXPECT_THROW(parse_yaml("port: [1\n"), CLI::ConversionError);
}

TEST(Flags, ValuesOutsideTheirBoundsAreRefused) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"0", "--max-sequences"},
                                                    {"1.5", "--queue-max"},
                                                    {"sse9", "--isa"},
                                                    {"70000", "--port"}}) {
    Options options;
    CLI::App app;
    add_flags(app, options, {FlagGroup::kEngine, FlagGroup::kHttp});
    std::vector<std::string> reversed = arguments;  // CLI11 takes them last first
    EXPECT_THROW(app.parse(reversed), CLI::ParseError) << arguments[1];
  }
}

TEST(Flags, SizesHaveUnits) {
  Options options;
  CLI::App app;
  add_flags(app, options, {FlagGroup::kEngine});
  app.parse(std::vector<std::string>{"2GiB", "--device-memory"});
  EXPECT_EQ(options.device_memory, uint64_t{2} << 30);
}

}  // namespace
}  // namespace spillway

// What `serve --fit` chooses on machines from too small to large: it must fit, by the same plan that serve checks, and
// what was given stays.
#include "cli/fit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "cli/memory_plan.h"
#include "common/check.h"

namespace spillway {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

PlannedModel model() {  // 135 million weights, 23 KiB of KV a token
  ModelConfig config;
  config.layer_count = 30;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.hidden = 576;
  config.feed_forward = 1536;
  config.vocab = 49152;
  config.context_max = 8192;
  return {config, uint64_t{84} << 20};
}

struct Chosen {
  Options options;
  std::map<std::string, std::string> flags;
  std::string reasons;
};

Chosen choose(const Machine& machine, Options options = {}, const std::set<std::string>& given = {}) {
  const Fit found = fit(machine, model(), options, given);
  Chosen chosen{options, {found.chosen.begin(), found.chosen.end()}, {}};
  for (const std::string& reason : found.reasons) chosen.reasons += reason + '\n';
  const auto number = [&](const char* flag, auto& value) {
    if (const auto at = chosen.flags.find(flag); at != chosen.flags.end())
      value = static_cast<std::remove_reference_t<decltype(value)>>(std::stoull(at->second));
  };
  number("max-model-len", chosen.options.max_model_len);
  number("max-sequences", chosen.options.max_sequences);
  if (chosen.flags.contains("device-memory")) {
    number("device-memory", chosen.options.device_memory);
    chosen.options.device_memory <<= 20;  // "NMiB"
  }
  return chosen;
}

TEST(Fit, Int8KvLetsMoreSequencesIn) {
  Options options;
  const Machine machine{2, 3 * kGiB};
  const uint32_t plain = choose(machine, options).options.max_sequences;
  options.kv_dtype = "int8";
  EXPECT_GT(choose(machine, options).options.max_sequences, plain);
}

TEST(Fit, WhatItChoosesFitsAndUsesTheMachine) {
  struct Case {
    Machine machine;
    uint32_t length, sequences;
  };
  for (const Case& each :
       {Case{{1, 4 * kGiB}, 8192, 32}, Case{{8, 12 * kGiB}, 8192, 64}, Case{{16, 128 * kGiB}, 8192, 64}}) {
    const Chosen chosen = choose(each.machine);
    EXPECT_EQ(chosen.options.max_model_len, each.length) << chosen.reasons;
    EXPECT_EQ(chosen.options.max_sequences, each.sequences) << chosen.reasons;
    EXPECT_EQ(memory_shortage(chosen.options, model(), each.machine.available_bytes * 9 / 10 + 1), std::nullopt);
    EXPECT_EQ(chosen.flags.size(), 3u);
  }
}

TEST(Fit, LessMemoryMeansAShorterContextBeforeItMeansNo) {
  uint32_t before = 0;
  for (uint64_t available = kGiB / 2; available <= 4 * kGiB; available += kGiB / 16) {
    try {
      const Chosen chosen = choose({2, available});
      EXPECT_GE(chosen.options.max_model_len, before) << available;
      EXPECT_EQ(memory_shortage(chosen.options, model(), available), std::nullopt) << chosen.reasons;
      before = chosen.options.max_model_len;
    } catch (const SetupError&) {
      EXPECT_EQ(before, 0u) << available;
    }
  }
  EXPECT_EQ(before, 8192u);
}

TEST(Fit, ATooSmallMachineIsToldWhatWouldDoAndThatDoes) {
  const uint64_t available = kGiB / 8;
  try {
    choose({2, available});
    FAIL() << "fits";
  } catch (const SetupError& error) {
    const std::string text = error.what();
    const size_t at = text.find("free ");
    ASSERT_NE(at, std::string::npos) << text;
    const uint64_t more = std::stoull(text.substr(at + 5));
    EXPECT_NE(text.find(" MiB", at), std::string::npos) << text;
    EXPECT_NO_THROW(choose({2, available + ((more + 1) << 20)})) << text;
    EXPECT_ANY_THROW(choose({2, available + ((more - 4) << 20)})) << text;
  }
}

TEST(Fit, WhatIsGivenStaysAndIsNamed) {
  Options options;
  options.threads = 3;
  options.max_model_len = 1024;
  options.max_sequences = 5;
  options.device_memory = uint64_t{100} << 20;
  const Chosen chosen = choose({4, 8 * kGiB}, options, {"max-model-len", "max-sequences", "device-memory"});
  EXPECT_TRUE(chosen.flags.empty()) << chosen.reasons;
  EXPECT_NE(chosen.reasons.find("threads of prefill nodes: 3 (as given)"), std::string::npos) << chosen.reasons;
  EXPECT_EQ(std::ranges::count(chosen.reasons, '('), 5) << chosen.reasons;  // "(as given)"
  options.device_memory = uint64_t{10} << 20;
  EXPECT_THROW(choose({4, 8 * kGiB}, options, {"max-model-len", "device-memory"}), SetupError);
}

TEST(Fit, ThreadsAreMeasuredByTheNodesNotGuessed) {
  Options options;
  options.prefill = 2;
  options.decode_threads = 3;
  const Chosen chosen = choose({8, 8 * kGiB}, options);
  EXPECT_NE(chosen.reasons.find("threads of prefill nodes: each measures at its start which of 1 to 4 is fastest, of "
                                "decode nodes: 3 (as given)"),
            std::string::npos)
      << chosen.reasons;
  for (const auto& [flag, value] : chosen.flags) EXPECT_EQ(flag.find("threads"), std::string::npos);
  options.prefill = 0;
  EXPECT_NE(choose({8, 8 * kGiB}, options).reasons.find("threads of decode nodes: 3 (as given)"), std::string::npos);
}

}  // namespace
}  // namespace spillway

// The memory plan on shapes without a model file, and remedies: what a message proposes must work.
#include "cli/memory_plan.h"

#include <gtest/gtest.h>

#include <regex>

namespace spillway {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

ModelConfig config() {
  ModelConfig config;
  config.layer_count = 30;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.hidden = 576;
  config.feed_forward = 1536;
  config.vocab = 49152;
  config.context_max = 2048;
  return config;
}

Options nodes(uint32_t prefill, uint32_t decode, uint64_t device_memory) {
  Options options;
  options.prefill = prefill;
  options.decode = decode;
  options.device_memory = device_memory;
  return options;
}

constexpr uint64_t kPlenty = uint64_t{1} << 40;

uint64_t number_after(const std::string& text, const std::string& words) {
  std::smatch found;
  if (!std::regex_search(text, found, std::regex(words + " ([0-9]+)"))) return 0;
  return std::stoull(found[1]);
}

TEST(MemoryPlan, EveryPeerOfTheOtherRoleHasARing) {
  const Options options = nodes(2, 3, 64 * kMiB);
  const uint64_t alone = plan_node_memory(options, config(), 0).total();
  EXPECT_EQ(plan_node_memory(options, config(), 3).total() - alone, 3 * kRingBytes);
  const uint64_t needed = 5 * alone + 2 * 2 * 3 * kRingBytes;  // both directions of 2 x 3 links
  EXPECT_FALSE(memory_shortage(options, config(), needed));
  EXPECT_TRUE(memory_shortage(options, config(), needed - 1));
}

TEST(MemoryPlan, WeightsInACacheFolderCountOnce) {
  Options options = nodes(1, 2, 64 * kMiB);
  uint64_t apart = 0;  // the least that suffices
  while (memory_shortage(options, config(), apart)) apart += kMiB;
  options.cache_dir = "somewhere";
  uint64_t shared = 0;
  while (memory_shortage(options, config(), shared)) shared += kMiB;
  const uint64_t weights = plan_node_memory(options, config(), 0).lines.front().bytes;
  EXPECT_NEAR(static_cast<double>(apart - shared), 2.0 * static_cast<double>(weights), 2.0 * kMiB);
}

TEST(MemoryPlan, AShorterLengthIsProposedOnlyWhereABlockFitsAndThenWorks) {
  Options options = nodes(1, 1, 10 * kMiB);
  const auto shortage = memory_shortage(options, config(), kPlenty);
  ASSERT_TRUE(shortage);
  options.max_model_len = static_cast<uint32_t>(number_after(*shortage, "lower --max-model-len to"));
  EXPECT_GT(options.max_model_len, 0u) << *shortage;
  EXPECT_FALSE(memory_shortage(options, config(), kPlenty)) << *shortage;
}

TEST(MemoryPlan, LessThanOneBlockMeansMoreMemoryAndThenWorks) {
  Options options = nodes(1, 1, config().kv_layout().block_bytes() - 1);
  const auto shortage = memory_shortage(options, config(), kPlenty);
  ASSERT_TRUE(shortage);
  EXPECT_EQ(shortage->find("--max-model-len"), std::string::npos) << *shortage;
  options.device_memory = number_after(*shortage, "raise --device-memory to") * kMiB;
  EXPECT_FALSE(memory_shortage(options, config(), kPlenty)) << *shortage;
}

TEST(MemoryPlan, LessKvMemoryIsProposedOnlyWhereARequestStillFitsAndThenWorks) {
  Options options = nodes(1, 1, 512 * kMiB);
  const uint64_t needed = 2 * plan_node_memory(options, config(), 1).total();
  const uint64_t available = needed - 300 * kMiB - 1;
  const auto shortage = memory_shortage(options, config(), available);
  ASSERT_TRUE(shortage);
  options.device_memory = number_after(*shortage, "lower --device-memory to") * kMiB;
  EXPECT_GT(options.device_memory, 0u) << *shortage;
  EXPECT_FALSE(memory_shortage(options, config(), available)) << *shortage;

  options.device_memory = 512 * kMiB;
  const auto hopeless = memory_shortage(options, config(), kMiB);
  ASSERT_TRUE(hopeless);
  EXPECT_EQ(number_after(*hopeless, "lower --device-memory to"), 0u) << *hopeless;
  EXPECT_NE(hopeless->find("start fewer nodes"), std::string::npos) << *hopeless;
}

}  // namespace
}  // namespace spillway

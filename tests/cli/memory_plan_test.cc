// The memory plan on shapes without a model file, and remedies: what a message proposes must work.
#include "cli/memory_plan.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "transfer/kv_sender.h"
#include "transfer/shm_transport.h"

namespace spillway {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

PlannedModel model() {
  ModelConfig config;
  config.layer_count = 30;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.hidden = 576;
  config.feed_forward = 1536;
  config.vocab = 49152;
  config.context_max = 2048;
  return {config, uint64_t{84} << 20};
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
  const size_t found = text.find(words + " ");
  return found == std::string::npos ? 0 : std::strtoull(text.c_str() + found + words.size() + 1, nullptr, 10);
}

uint64_t ring() { return ring_bytes_for(frame_bytes_max(model().config.kv_layout())); }

TEST(MemoryPlan, EveryPeerOfTheOtherRoleHasARing) {
  const Options options = nodes(2, 3, 64 * kMiB);
  const uint64_t alone = plan_node_memory(options, model(), 0).total();
  EXPECT_EQ(plan_node_memory(options, model(), 3).total() - alone, 3 * ring());
  const uint64_t weights = plan_node_memory(options, model(), 0).lines.front().bytes;
  const uint64_t needed = 5 * alone - 4 * weights + 2 * 2 * 3 * ring();  // both directions of 2 x 3 links
  EXPECT_FALSE(memory_shortage(options, model(), needed));
  EXPECT_TRUE(memory_shortage(options, model(), needed - 1));
}

TEST(MemoryPlan, ANodeThatColocatesAloneHasNoPeer) {
  const Options one = nodes(0, 1, 64 * kMiB);
  EXPECT_EQ(needed_bytes(one, model()), plan_node_memory(one, model(), 0).total());
  for (const MemoryPlan::Line& line : plan_node_memory(one, model(), 0).lines)
    EXPECT_EQ(line.what.find("rings"), std::string::npos);
  EXPECT_TRUE(memory_shortage(one, model(), needed_bytes(one, model()) - 1).value().starts_with("the node needs "));
}

TEST(MemoryPlan, WeightsCountOnce) {
  const Options two = nodes(1, 1, 64 * kMiB), three = nodes(1, 2, 64 * kMiB);
  const MemoryPlan node = plan_node_memory(two, model(), 1);
  const uint64_t weights = node.lines.front().bytes;
  EXPECT_EQ(needed_bytes(two, model()), 2 * node.total() - weights);
  EXPECT_EQ(needed_bytes(three, model()), 3 * (node.total() - weights) + weights + ring());
}

TEST(MemoryPlan, AShorterLengthIsProposedOnlyWhereABlockFitsAndThenWorks) {
  Options options = nodes(1, 1, 10 * kMiB);
  const auto shortage = memory_shortage(options, model(), kPlenty);
  ASSERT_TRUE(shortage);
  options.max_model_len = static_cast<uint32_t>(number_after(*shortage, "lower --max-model-len to"));
  EXPECT_GT(options.max_model_len, 0u) << *shortage;
  EXPECT_FALSE(memory_shortage(options, model(), kPlenty)) << *shortage;
}

TEST(MemoryPlan, Int8KvHoldsARequestInLess) {
  const uint64_t bf16_block = model().config.kv_layout().block_bytes();
  const uint64_t int8_block = model().config.kv_layout(KvDtype::kInt8).block_bytes();
  EXPECT_EQ(12 * int8_block, 7 * bf16_block);  // pages of a part
  Options options = nodes(1, 1, 2048 / 64 * int8_block);
  EXPECT_TRUE(memory_shortage(options, model(), kPlenty));
  options.kv_dtype = "int8";
  EXPECT_FALSE(memory_shortage(options, model(), kPlenty));
  --options.device_memory;
  EXPECT_TRUE(memory_shortage(options, model(), kPlenty));
}

TEST(MemoryPlan, LessThanOneBlockMeansMoreMemoryAndThenWorks) {
  Options options = nodes(1, 1, model().config.kv_layout().block_bytes() - 1);
  const auto shortage = memory_shortage(options, model(), kPlenty);
  ASSERT_TRUE(shortage);
  EXPECT_EQ(shortage->find("--max-model-len"), std::string::npos) << *shortage;
  options.device_memory = number_after(*shortage, "raise --device-memory to") * kMiB;
  EXPECT_FALSE(memory_shortage(options, model(), kPlenty)) << *shortage;
}

TEST(MemoryPlan, LessKvMemoryIsProposedOnlyWhereARequestStillFitsAndThenWorks) {
  Options options = nodes(1, 1, 512 * kMiB);
  const uint64_t needed = 2 * plan_node_memory(options, model(), 1).total();
  const uint64_t available = needed - 300 * kMiB - 1;
  const auto shortage = memory_shortage(options, model(), available);
  ASSERT_TRUE(shortage);
  options.device_memory = number_after(*shortage, "lower --device-memory to") * kMiB;
  EXPECT_GT(options.device_memory, 0u) << *shortage;
  EXPECT_FALSE(memory_shortage(options, model(), available)) << *shortage;

  options.device_memory = 512 * kMiB;
  const auto hopeless = memory_shortage(options, model(), kMiB);
  ASSERT_TRUE(hopeless);
  EXPECT_EQ(number_after(*hopeless, "lower --device-memory to"), 0u) << *hopeless;
  EXPECT_NE(hopeless->find("start fewer nodes"), std::string::npos) << *hopeless;
  EXPECT_GT(number_after(*hopeless, "or free"), 0u) << *hopeless;
  EXPECT_FALSE(memory_shortage(options, model(), kMiB + number_after(*hopeless, "or free") * kMiB)) << *hopeless;
}

TEST(MemoryPlan, WhereOnlyAShorterLengthFitsItIsProposedWithItsMemoryAndThenWorks) {
  Options options = nodes(1, 1, 64 * kMiB);
  const uint64_t available = needed_bytes(options, model()) - 2 * 32 * kMiB;
  const auto shortage = memory_shortage(options, model(), available);
  ASSERT_TRUE(shortage);
  EXPECT_GT(number_after(*shortage, "or free"), 0u) << *shortage;
  options.max_model_len = static_cast<uint32_t>(number_after(*shortage, "lower --max-model-len to"));
  options.device_memory = number_after(*shortage, "--device-memory to") * kMiB;
  EXPECT_GT(options.max_model_len, 0u) << *shortage;
  EXPECT_FALSE(memory_shortage(options, model(), available)) << *shortage;
}

}  // namespace
}  // namespace spillway

#include "kv/block.h"

#include <gtest/gtest.h>

#include <vector>

namespace spillway {
namespace {

TEST(KvLayout, PartHoldsKAndVPaddedToPages) {
  const KvLayout model{.layer_count = 30, .kv_heads = 3, .head_dim = 64, .block_tokens = 64};
  EXPECT_EQ(model.k_bytes(), 24576u);
  EXPECT_EQ(model.part_bytes(), 49152u);
  EXPECT_EQ(model.block_bytes(), 30u * 49152u);
  const KvLayout tiny{.layer_count = 2, .kv_heads = 1, .head_dim = 2, .block_tokens = 16};
  EXPECT_EQ(tiny.part_bytes(), kPageBytes);
}

TEST(KvLayout, Int8HoldsCodesAndTwoScalesPerTokenAndHead) {
  const KvLayout model{.layer_count = 30, .kv_heads = 3, .head_dim = 64, .block_tokens = 64, .dtype = KvDtype::kInt8};
  EXPECT_EQ(model.token_bytes(), 2u * 3 * (64 + 4));
  EXPECT_EQ(model.k_bytes(), 12288u);
  EXPECT_EQ(model.k_scale_bytes(), 768u);
  EXPECT_EQ(model.part_bytes(), 28672u);  // 26,112 in whole pages
  const KvLayout larger{.layer_count = 1, .kv_heads = 8, .head_dim = 128, .dtype = KvDtype::kInt8};
  EXPECT_EQ(larger.part_bytes(), 2u * 8 * 64 * (128 + 4));
}

TEST(KvLayout, BlocksForRoundsUp) {
  const KvLayout layout{.layer_count = 1, .kv_heads = 1, .head_dim = 2, .block_tokens = 64};
  EXPECT_EQ(layout.blocks_for(0), 0u);
  EXPECT_EQ(layout.blocks_for(1), 1u);
  EXPECT_EQ(layout.blocks_for(64), 1u);
  EXPECT_EQ(layout.blocks_for(65), 2u);
}

class ArenaParts : public testing::TestWithParam<size_t> {};

TEST_P(ArenaParts, TileTheArenaWithoutGapOrOverlap) {
  const KvLayout layout{.layer_count = 3, .kv_heads = 1, .head_dim = 2, .block_tokens = 16};
  const size_t header_bytes = GetParam();
  std::vector<std::byte> memory(4 * (header_bytes + layout.block_bytes()));
  const SlotArena arena{memory.data(), header_bytes, layout, 4};
  const std::byte* expected = memory.data();
  for (uint32_t slot = 0; slot < 4; ++slot) {
    expected += header_bytes;
    for (uint16_t layer = 0; layer < 3; ++layer) {
      const auto part = arena.parts(SlotId{slot}, {layer, 1});
      EXPECT_EQ(part.data(), expected);
      EXPECT_EQ(part.size(), layout.part_bytes());
      expected += part.size();
    }
    EXPECT_EQ(arena.parts(SlotId{slot}, {1, 2}).data(), arena.parts(SlotId{slot}, {1, 1}).data());
    EXPECT_EQ(arena.parts(SlotId{slot}, {1, 2}).size(), 2 * layout.part_bytes());
  }
  EXPECT_EQ(expected, memory.data() + memory.size());
}
INSTANTIATE_TEST_SUITE_P(HeaderBytes, ArenaParts, testing::Values(0, kPageBytes));

TEST(ArenaPartsDeathTest, OutOfBoundsIsAProgrammerError) {
  const KvLayout layout{.layer_count = 3, .kv_heads = 1, .head_dim = 2, .block_tokens = 16};
  std::vector<std::byte> memory(2 * layout.block_bytes());
  const SlotArena arena{memory.data(), 0, layout, 2};
  EXPECT_DEATH(arena.parts(SlotId{2}, {0, 1}), "CHECK failed");
  EXPECT_DEATH(arena.parts(SlotId{0}, {2, 2}), "CHECK failed");
}

TEST(ModelId, HexIsLowerCaseAndBigEndianByByte) {
  ModelId model;
  model.bytes[0] = std::byte{0x0a};
  model.bytes[15] = std::byte{0xf1};
  EXPECT_EQ(model.hex(), "0a0000000000000000000000000000f1");
}

}  // namespace
}  // namespace spillway

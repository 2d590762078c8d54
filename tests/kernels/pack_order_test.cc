#include <cstring>

#include "tests/kernels/backend_cases.h"

namespace spillway {
namespace {

using PackOrderTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(PackOrderTest);

constexpr uint32_t kCols = 37;

// Rows of heads in two halves, in pairs: what "NEOX" order says, one head after the other.
std::vector<float> paired(const std::vector<float>& halves, uint32_t head_dim) {
  std::vector<float> pairs(halves.size());
  float* out = pairs.data();
  for (size_t head = 0; head < halves.size(); head += size_t{head_dim} * kCols)
    for (uint32_t pair = 0; pair < head_dim / 2; ++pair)
      for (const uint32_t row : {pair, pair + head_dim / 2})
        out = std::copy_n(halves.data() + head + size_t{row} * kCols, kCols, out);
  return pairs;
}

TEST_P(PackOrderTest, HalfSplitHeadsPackAsTheirPairsWould) {
  const auto backend = make(2);
  for (const uint32_t head_dim : {2u, 16u, 80u, 128u}) {
    Values values(head_dim);
    const std::vector<float> q = values.f32(3 * head_dim * kCols), k = values.f32(head_dim * kCols);
    const std::vector<float> v = values.f32(head_dim * kCols);
    const std::vector<float> q_pairs = paired(q, head_dim), k_pairs = paired(k, head_dim);
    FileTensor split[] = {f32_tensor(q, 3 * head_dim, kCols), f32_tensor(k, head_dim, kCols),
                          f32_tensor(v, head_dim, kCols)};
    split[0].half_split_rows = split[1].half_split_rows = head_dim;
    const FileTensor pairs[] = {f32_tensor(q_pairs, 3 * head_dim, kCols), f32_tensor(k_pairs, head_dim, kCols),
                                f32_tensor(v, head_dim, kCols)};
    const Weight found = backend->pack(split, PackOrder::kRows), expected = backend->pack(pairs, PackOrder::kRows);
    ASSERT_EQ(found.bytes, expected.bytes);
    EXPECT_EQ(std::memcmp(found.data, expected.data, found.bytes), 0) << head_dim;
  }
}

}  // namespace
}  // namespace spillway

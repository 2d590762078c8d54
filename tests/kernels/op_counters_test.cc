#include "kernels/op_counters.h"

#include "kernels/rope_append.h"
#include "tests/kernels/paged_kv.h"

namespace spillway {
namespace {

using OpCountersTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(OpCountersTest);

TEST_P(OpCountersTest, GemmCountsFlopsAndPackedBytes) {
  const auto backend = make(2);
  const std::vector<float> values = Values(1).f32(200 * 100);
  const FileTensor tensor = f32_tensor(values, 200, 100);
  const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
  EXPECT_EQ(weight.bytes, 4u * 64 * 100 * 2);  // four panels
  std::vector<uint16_t> a(3 * 100);
  std::vector<float> out(3 * 200);
  for (int call = 0; call < 2; ++call) {
    backend->gemm({view(a, {3, 100}), &weight, Epilogue::kNone, view(out, {3, 200})});
  }
  EXPECT_EQ(backend->counters().gemm_flops, 2u * 2 * 3 * 200 * 100);
  EXPECT_EQ(backend->counters().weight_bytes, 2 * weight.bytes);
  EXPECT_EQ(backend->counters().mlp_rows, 0u);
}

TEST_P(OpCountersTest, SwiGluCountsItsRows) {
  const auto backend = make();
  const std::vector<float> values = Values(2).f32(32 * 16);
  const FileTensor pair[] = {f32_tensor(values, 32, 16), f32_tensor(values, 32, 16)};
  const Weight weight = backend->pack(pair, PackOrder::kGateUp);
  std::vector<uint16_t> a(5 * 16), out(5 * 32);
  backend->gemm({view(a, {5, 16}), &weight, Epilogue::kSwiGlu, view(out, {5, 32})});
  EXPECT_EQ(backend->counters().mlp_rows, 5u);
  EXPECT_EQ(backend->counters().gemm_flops, 2u * 5 * 64 * 16);
}

TEST_P(OpCountersTest, AttentionCountsKeysUpToEachRow) {
  const auto backend = make(2);
  PagedKv kv({1, 2, 32, 64}, {slots_from(0, 3), slots_from(3, 3)});
  kv.fill(0, 0, 192, 0, 1);
  kv.fill(1, 0, 192, 0, 2);
  std::vector<uint16_t> q(8 * 4 * 32), out(q.size());
  const TokenSpan spans[] = {{0, 7, 90, 0}, {7, 1, 150, 1}};
  backend->attention({view(q, {8, 4, 32}), kv.table(), kv.arena(), 0, spans, 1, view(out, {8, 4, 32})});
  uint64_t keys = 151;
  for (uint64_t position = 90; position < 97; ++position) keys += position + 1;
  EXPECT_EQ(backend->counters().attention_flops, 4 * 32 * 4 * keys);
  EXPECT_EQ(backend->counters().kv_bytes, (97 + 151) * 2 * 32 * 2 * sizeof(uint16_t));  // K and V of two kv heads
  const auto int8 = make_backend({.isa = GetParam(), .precision = {.kv = KvDtype::kInt8}});
  PagedKv codes({1, 2, 32, 64, KvDtype::kInt8}, {slots_from(0, 3), slots_from(3, 3)});
  int8->attention({view(q, {8, 4, 32}), codes.table(), codes.arena(), 0, spans, 1, view(out, {8, 4, 32})});
  EXPECT_EQ(int8->counters().kv_bytes, (97 + 151) * 2 * (32 + sizeof(float)) * 2);
}

TEST_P(OpCountersTest, AppendAndSampleCountRowsAndResetForgets) {
  const auto backend = make();
  PagedKv kv({1, 1, 16, 64}, {slots_from(0, 1)});
  std::vector<float> qkv(9 * 64), table(20 * 16), logits(3 * 10);
  std::vector<uint16_t> q(9 * 2 * 16);
  const TokenSpan spans[] = {{0, 4, 0, 0}, {4, 5, 4, 0}};
  backend->rope_append(
      {view(qkv, {9, 64}), kv.table(), kv.arena(), 0, spans, 2, view(table, {20, 16}), view(q, {9, 2, 16})});
  std::vector<SampleRow> rows(3);
  backend->sample({view(logits, {3, 10}), rows});
  EXPECT_EQ(backend->counters().q_rows, 9u);
  EXPECT_EQ(backend->counters().kv_rows, 9u);
  EXPECT_EQ(backend->counters().logit_rows, 3u);
  backend->reset_counters();
  EXPECT_EQ(backend->counters().q_rows + backend->counters().kv_rows + backend->counters().logit_rows, 0u);
}

}  // namespace
}  // namespace spillway

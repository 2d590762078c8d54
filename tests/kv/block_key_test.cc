#include "kv/block_key.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <numeric>
#include <string>

namespace spillway {
namespace {

template <size_t N>
std::string hex(const std::array<std::byte, N>& bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

template <class Value>
Value counting(unsigned first) {
  Value value;
  for (std::byte& byte : value.bytes) byte = static_cast<std::byte>(first++);
  return value;
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// Expected values: Python's hmac and hashlib over the message that block_key.h documents.
TEST(BlockKey, KnownAnswer) {
  const auto tenant = counting<TenantKey>(0);
  const auto model = counting<ModelId>(0xa0);
  std::vector<TokenId> tokens(16);
  std::iota(tokens.begin(), tokens.end(), 1000);
  const BlockKey first = block_key(tenant, model, {}, tokens);
  EXPECT_EQ(hex(first.bytes), "e61c547c085eec5907ecb3d8f67a4682");
  EXPECT_EQ(hex(block_key(tenant, model, first, std::vector<TokenId>(16, 0xffffffff)).bytes),
            "aea54f0313009d1faf85240f47f822b8");
}

TEST(TenantKeys, KnownAnswer) {
  const auto secret = bytes_of("correct horse battery staple");
  EXPECT_EQ(hex(derive_tenant_key(secret, "tenant-a").bytes),
            "a0fb4fdeafb69e45bbee84f26df58d701192f48af39684cb7947efe5de78dda5");
  EXPECT_EQ(hex(derive_tenant_key(secret, "").bytes),
            "7c726137c1b4f087397faa16738be8f769122b75ec2e8756cb68ea15cb239600");
}

RC_GTEST_PROP(BlockKeys, ChainOfFullBlocksOnly, ()) {
  const auto block_tokens = *rc::gen::inRange<uint32_t>(1, 20);
  const auto tokens = *rc::gen::container<std::vector<TokenId>>(rc::gen::arbitrary<TokenId>());
  const auto tenant = counting<TenantKey>(*rc::gen::inRange(0u, 256u));
  const ModelId model = counting<ModelId>(1);
  const auto keys = block_keys(tenant, {}, model, block_tokens, tokens);
  RC_ASSERT(keys.size() == tokens.size() / block_tokens);
  BlockKey parent;
  for (size_t i = 0; i < keys.size(); ++i) {
    RC_ASSERT(keys[i] == block_key(tenant, model, parent, std::span(tokens).subspan(i * block_tokens, block_tokens)));
    parent = keys[i];
  }
}

RC_GTEST_PROP(BlockKeys, OneChangedTokenChangesItsBlockAndAllAfter, ()) {
  const auto tokens = *rc::gen::container<std::vector<TokenId>>(32, rc::gen::arbitrary<TokenId>());
  const auto position = *rc::gen::inRange<size_t>(0, 32);
  auto changed = tokens;
  changed[position] ^= 1u << *rc::gen::inRange(0, 32);
  const auto tenant = counting<TenantKey>(3);
  const auto before = block_keys(tenant, {}, {}, 4, tokens);
  const auto after = block_keys(tenant, {}, {}, 4, changed);
  for (size_t block = 0; block < before.size(); ++block) {
    RC_ASSERT((before[block] == after[block]) == (block < position / 4));
  }
}

RC_GTEST_PROP(BlockKeys, TenantsAndModelsNeverShare, ()) {
  const auto tokens = *rc::gen::container<std::vector<TokenId>>(4, rc::gen::arbitrary<TokenId>());
  const auto a = *rc::gen::string<std::string>();
  const auto b = *rc::gen::string<std::string>();
  RC_PRE(a != b);
  const TenantKey tenant_a = derive_tenant_key(bytes_of("secret"), a),
                  tenant_b = derive_tenant_key(bytes_of("secret"), b);
  RC_ASSERT(tenant_a != tenant_b);
  RC_ASSERT(derive_tenant_key(bytes_of("another secret"), a) != tenant_a);
  RC_ASSERT(block_key(tenant_a, {}, {}, tokens) != block_key(tenant_b, {}, {}, tokens));
  RC_ASSERT(block_key(tenant_a, {}, {}, tokens) != block_key(tenant_a, counting<ModelId>(1), {}, tokens));
}

// Two tenants with the same prompt: their keys agree in blocks wholly inside the public part, and in no block past it.
RC_GTEST_PROP(BlockKeys, TenantsShareBlocksWhollyInsideThePublicPrefixOnly, ()) {
  const auto block_tokens = *rc::gen::inRange<uint32_t>(1, 20);
  const auto tokens = *rc::gen::container<std::vector<TokenId>>(rc::gen::arbitrary<TokenId>());
  const auto public_tokens = *rc::gen::inRange<uint32_t>(0, static_cast<uint32_t>(tokens.size()) + 1);
  const auto a = counting<TenantKey>(1), b = counting<TenantKey>(2), everyone = counting<TenantKey>(3);
  const PublicPrefix shared{everyone, public_tokens};
  const auto of_a = block_keys(a, shared, {}, block_tokens, tokens);
  const auto of_b = block_keys(b, shared, {}, block_tokens, tokens);
  const auto of_a_alone = block_keys(a, {}, {}, block_tokens, tokens);
  RC_ASSERT(of_a.size() == tokens.size() / block_tokens);
  for (size_t block = 0; block < of_a.size(); ++block) {
    const bool is_public = (block + 1) * block_tokens <= public_tokens;
    RC_ASSERT((of_a[block] == of_b[block]) == is_public);
    RC_ASSERT((of_a[block] != of_a_alone[block]) == (public_tokens >= block_tokens));
  }
}

// What follows the same public block in different words is neither the other's nor hit by one who lacks the block.
TEST(BlockKeys, ABlockAfterThePublicOnesContinuesThem) {
  const auto tenant = counting<TenantKey>(1), everyone = counting<TenantKey>(2);
  const std::vector<TokenId> tokens{1, 2, 3, 4, 5, 6};
  const auto keys = block_keys(tenant, {everyone, 5}, {}, 2, tokens);
  EXPECT_EQ(keys[0], block_key(everyone, {}, {}, std::vector<TokenId>{1, 2}));
  EXPECT_EQ(keys[1], block_key(everyone, {}, keys[0], std::vector<TokenId>{3, 4}));
  EXPECT_EQ(keys[2], block_key(tenant, {}, keys[1], std::vector<TokenId>{5, 6})) << "only partly public";
}

// Were fields only concatenated, moving bytes between parent, model and tokens would give the same message.
TEST(BlockKey, FieldsDoNotRunIntoEachOther) {
  const auto tenant = counting<TenantKey>(0);
  const auto some = counting<BlockKey>(1);
  ModelId as_model;
  as_model.bytes = some.bytes;
  const std::vector<TokenId> two{0, 0}, three{0, 0, 0};
  EXPECT_NE(block_key(tenant, {}, some, two), block_key(tenant, as_model, {}, two));
  EXPECT_NE(block_key(tenant, {}, some, two), block_key(tenant, {}, some, three));
}

TEST(TenantKeysDeathTest, EmptySecretIsAProgrammerError) { EXPECT_DEATH(derive_tenant_key({}, "a"), "CHECK failed"); }

}  // namespace
}  // namespace spillway

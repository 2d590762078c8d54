#include "transfer/message_codec.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "messages_generated.h"

namespace spillway {
namespace {

using rc::gen::arbitrary;

template <class Enum>
Enum any_of(Enum last) {
  return static_cast<Enum>(*rc::gen::inRange<int>(0, static_cast<int>(last) + 1));
}
std::string any_text(size_t bytes_max) {
  const size_t size = *rc::gen::inRange<size_t>(0, bytes_max + 1);
  return *rc::gen::container<std::string>(size, rc::gen::inRange<char>(' ', '~'));
}
template <size_t N>
std::array<std::byte, N> any_bytes() {
  std::array<std::byte, N> bytes;
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(*arbitrary<uint8_t>());
  return bytes;
}
uint32_t u32() { return *arbitrary<uint32_t>(); }
uint64_t u64() { return *arbitrary<uint64_t>(); }
Attempt any_attempt() { return {{BootId{u64()}, u64()}, {BootId{u64()}, u64()}, Epoch{u32()}}; }
std::vector<TokenId> any_tokens(size_t count_max) {
  const size_t count = *rc::gen::inRange<size_t>(0, count_max + 1);
  return *rc::gen::container<std::vector<TokenId>>(count, arbitrary<TokenId>());
}
// From `low` to `high` in steps of 1/64, so that each bound is met.
float any_float(int low, int high) { return static_cast<float>(*rc::gen::inRange(64 * low, 64 * high + 1)) / 64; }
SamplingParams any_sampling(uint32_t output_tokens_max) {
  SamplingParams sampling;
  sampling.temperature = std::fabs(*arbitrary<float>());
  sampling.seed = u64();
  sampling.choice = u32();
  sampling.top_k = u32();
  sampling.top_p = std::max(1e-30f, any_float(0, 1));
  sampling.min_p = any_float(0, 1);
  sampling.presence_penalty = any_float(-2, 2);
  sampling.frequency_penalty = any_float(-2, 2);
  sampling.repetition_penalty = std::max(1e-30f, any_float(0, 2));
  sampling.min_tokens = u32() % output_tokens_max;
  for (const TokenId token : any_tokens(kLogitBiasMax))
    sampling.logit_bias.push_back({token % kTokenIdEnd, any_float(-100, 100)});
  return sampling;
}
Work any_work() {
  Work work;
  work.attempt = any_attempt();
  work.prompt = any_tokens(300);
  work.output_tokens_max = std::max(1u, u32());
  work.sampling = any_sampling(work.output_tokens_max);
  work.tenant.bytes = any_bytes<32>();
  if (const uint32_t tokens = u32() % (work.prompt.size() + 1); tokens > 0)
    work.public_prefix = {{any_bytes<32>()}, tokens};
  work.stop_tokens = any_tokens(kStopTokensMax);
  work.digest_logits = *arbitrary<bool>();
  if (*arbitrary<bool>()) work.trace = {u64(), u64() | 1, u64() | 1};
  work.logprob_count = u32() % (2 + kLogprobsMax);
  work.score_prompt = work.logprob_count > 0 && *arbitrary<bool>();
  return work;
}
Hello any_hello() {
  Hello hello;
  hello.role = any_of(Role::kDecode);
  hello.boot = BootId{u64()};
  hello.name = any_text(kNameBytesMax);
  hello.model.bytes = any_bytes<16>();
  hello.encoding = {any_of(BlockEncoding::Order::kCpuTiled), any_of(KvDtype::kInt8),
                    NumericsClass{*arbitrary<uint16_t>()}};
  hello.control_endpoint = any_text(kEndpointBytesMax);
  for (const char byte : any_text(kEndpointBytesMax)) hello.bulk_endpoint.push_back(static_cast<std::byte>(byte));
  hello.blocks_total = u32();
  hello.sequences_max = u32();
  hello.max_model_len = u32();
  hello.block_tokens = u32();
  hello.canary = u64();
  hello.step_tokens = u32();
  hello.growth_margin = u32();
  hello.colocates = hello.role == Role::kDecode && *arbitrary<bool>();
  return hello;
}

std::vector<TokenLogprob> any_logprobs(TokenId token, uint32_t count) {
  std::vector<TokenLogprob> out;
  for (uint32_t index = 0; index < count; ++index)
    out.push_back({index == 0 ? token : u32(), index == 0 ? any_float(-30, 0) : -static_cast<float>(index)});
  return out;
}

NodeTimings any_timings() { return {u32(), u32(), u32(), u32(), u32()}; }
PromptLogprobs any_scores() {
  PromptLogprobs scores{any_attempt(), u32(), u32() % (2 + kLogprobsMax), {}};
  for (uint32_t index = u32() % (1 + kScoredTokensMax); index > 0; --index)
    for (const TokenLogprob& one : any_logprobs(u32(), scores.logprob_count)) scores.logprobs.push_back(one);
  return scores;
}

Load any_load() {
  Load load{u32(), u32(),         u32(), u32(), u64(), u64(), u32(), {u64(), u64(), u64(), u64(), u64(), u64()},
            u32(), u32() % 2 == 0};
  load.blocks_share = load.blocks_free - u32() % (load.blocks_free / 2 + 1);
  load.sequences_share = u32();
  load.newest_transfer = u64();
  load.transfer_stalled_ms = u32();
  return load;
}

Message any_message(size_t kind) {
  switch (kind) {
    case 0: return any_hello();
    case 1: return HelloRefused{any_text(kDetailBytesMax)};
    case 2: return any_load();
    case 3: return PeerInfo{BootId{u64()}, any_text(kEndpointBytesMax)};
    case 4: return Prefill{any_work(), BootId{u64()}};
    case 5: return Reserve{any_work(), BootId{u64()}};
    case 6: return Grant{any_attempt(), u32()};
    case 7: return PrefillDone{any_attempt(), u32(), u32(), *arbitrary<bool>()};
    case 8: return Committed{any_attempt()};
    case 9: return Lease{any_attempt(), u32() % (kLeaseMsMax + 1)};
    case 10: {
      Token token{any_attempt(), u32(), u32(), any_of(FinishReason::kLength), u64(), any_timings()};
      token.logprobs = any_logprobs(token.token, u32() % (2 + kLogprobsMax));
      return token;
    }
    case 11: return any_scores();
    case 12: return Cancel{any_attempt()};
    case 13: return Failed{any_attempt(), any_of(ErrorCode::kInternal), any_text(kDetailBytesMax)};
    case 14: return Heartbeat{};
    case 15: return MayLeave{};
    case 16: return Want{u32()};
    default: return Yield{any_attempt()};
  }
}

constexpr size_t kKinds = std::variant_size_v<Message>;

RC_GTEST_PROP(MessageCodec, EveryMessageComesBackEqual, ()) {
  for (size_t kind = 0; kind < kKinds; ++kind) {
    const Message message = any_message(kind);
    RC_ASSERT(message.index() == kind);
    const BootId sender{u64()};
    std::vector<std::byte> bytes = encode_message(sender, message);
    bytes.insert(bytes.begin(), std::byte{});  // ZeroMQ promises no alignment
    const Result<Envelope> back = decode_message(std::span(bytes).subspan(1));
    RC_ASSERT(back.has_value());
    RC_ASSERT(back->sender == sender);
    RC_ASSERT(back->message == message);
  }
}

// One valid message of each kind, made without RapidCheck so that mutations repeat.
std::vector<Message> samples() {
  Work work;
  work.attempt = {{BootId{1}, 2}, {BootId{3}, 4}, Epoch{5}};
  work.prompt = {1, 2, 3};
  work.output_tokens_max = 7;
  work.sampling = {.temperature = 0.5f, .top_p = 0.9f, .min_tokens = 2, .logit_bias = {{7, -100}, {9, 3}}};
  work.stop_tokens = {0, 2};
  work.trace = {1, 2, 3};
  Hello hello;
  hello.name = "decode 0";
  hello.control_endpoint = "ipc:///run/d0";
  hello.bulk_endpoint.assign(20, std::byte{9});
  const Attempt attempt = work.attempt;
  return {hello,
          HelloRefused{"no"},
          Load{1, 2, 3, 4, 5, 6, 7, {8, 9, 10, 11, 12, 13}, 4000, true, 1, 14, 15, 16},
          Want{17},
          PeerInfo{BootId{8}, "ipc:///run/d1"},
          Prefill{work, BootId{1}},
          Reserve{work, BootId{2}},
          Grant{attempt, 1},
          PrefillDone{attempt, 3, 17, true},
          Committed{attempt},
          Lease{attempt, 1000},
          Token{attempt, 1, 2, FinishReason::kStop, 3, {1, 2, 3, 4, 5}, {{2, -3}, {9, -1}, {8, -1}}},
          PromptLogprobs{attempt, 1, 2, {{4, -3}, {1, -1}, {5, 0}, {5, 0}}},
          Cancel{attempt},
          Yield{attempt},
          Failed{attempt, ErrorCode::kDeadline, "late"},
          Heartbeat{},
          MayLeave{}};
}

TEST(MessageCodec, MutatedBytesNeverCrashAndWhatIsReadStaysInBounds) {
  std::mt19937_64 random(5);
  size_t refused = 0, read = 0;
  for (const Message& message : samples()) {
    const std::vector<std::byte> valid = encode_message(BootId{77}, message);
    for (int round = 0; round < 1500; ++round) {
      std::vector<std::byte> bytes = valid;
      for (uint64_t flips = 1 + random() % 4; flips > 0; --flips)
        bytes[random() % bytes.size()] = static_cast<std::byte>(random());
      if (random() % 4 == 0) bytes.resize(random() % (bytes.size() + 1));
      const Result<Envelope> back = decode_message(bytes);
      if (!back) {
        EXPECT_EQ(back.error().code, ErrorCode::kCorrupt);
        EXPECT_FALSE(back.error().detail.empty());
        ++refused;
        continue;
      }
      ++read;
      // Within bounds: it can be sent again, and says the same.
      if (const auto* const hello = std::get_if<Hello>(&back->message);
          hello && hello->protocol_version != kProtocolVersion)
        continue;
      EXPECT_EQ(decode_message(encode_message(back->sender, back->message))->message, back->message);
    }
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(read, 1000u);
}

TEST(MessageCodec, EveryTruncationIsRefused) {
  for (const Message& message : samples()) {
    const std::vector<std::byte> valid = encode_message(BootId{77}, message);
    // Builders place the root last in time, first in the buffer: a shorter buffer always loses something that is
    // needed.
    for (size_t size = 0; size + 8 < valid.size(); size += 1 + valid.size() / 37)
      EXPECT_FALSE(decode_message(std::span(valid).first(size)).has_value()) << message_name(message) << " " << size;
  }
}

TEST(MessageCodec, TextsAreCutBetweenCharacters) {
  Failed failed{{}, ErrorCode::kInternal, "x"};
  while (failed.detail.size() <= kDetailBytesMax) failed.detail += "\xC3\xA9";  // two bytes each, from an odd start
  const auto back = std::get<Failed>(decode_message(encode_message(BootId{1}, failed))->message);
  EXPECT_EQ(back.detail, failed.detail.substr(0, kDetailBytesMax - 1));
}

TEST(Messages, EveryMessageAndRoleHasItsOwnName) {
  std::vector<std::string_view> names;
  for (const Message& message : samples()) names.push_back(message_name(message));
  EXPECT_EQ(names.front(), "Hello");
  EXPECT_EQ(names.back(), "MayLeave");
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::unique(names).size(), 0u);
  EXPECT_EQ(role_name(Role::kPrefill), "prefill");
  EXPECT_EQ(role_name(Role::kDecode), "decode");
  EXPECT_EQ(role_name(Role::kGateway), "gateway");
  Hello hello;
  hello.role = Role::kDecode;
  EXPECT_EQ(process_name(hello), "a decode node");
  hello.name = "decode 1";
  EXPECT_EQ(process_name(hello), "decode 1");
}

}  // namespace
}  // namespace spillway

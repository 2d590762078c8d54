// What decode_message refuses: each bound of each message, with its words.
#include <gtest/gtest.h>

#include <limits>

#include "messages_generated.h"
#include "transfer/message_codec.h"

namespace spillway {
namespace {

// Encodes by hand, past the checks of encode_message.
template <class Make>
std::vector<std::byte> envelope(wire::Body type, Make&& make) {
  flatbuffers::FlatBufferBuilder builder;
  const flatbuffers::Offset<void> body = make(builder);
  wire::FinishEnvelopeBuffer(builder, wire::CreateEnvelope(builder, 1, type, body));
  const auto* const bytes = reinterpret_cast<const std::byte*>(builder.GetBufferPointer());
  return {bytes, bytes + builder.GetSize()};
}
std::vector<std::byte> reserve(uint32_t prompt, uint32_t stops, uint32_t output, const SamplingParams& sampling = {}) {
  return envelope(wire::Body::Reserve, [&](flatbuffers::FlatBufferBuilder& builder) {
    const wire::Attempt attempt;
    const wire::Bytes32 tenant;
    const auto prompt_tokens = builder.CreateVector(std::vector<uint32_t>(prompt));
    const auto stop_tokens = builder.CreateVector(std::vector<uint32_t>(stops));
    std::vector<wire::LogitBias> biases;
    for (const LogitBias& one : sampling.logit_bias) biases.emplace_back(one.token, one.bias);
    const auto wire_sampling =
        wire::CreateSampling(builder, sampling.temperature, 0, 0, 0, sampling.top_p, sampling.min_p,
                             sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty,
                             sampling.min_tokens, builder.CreateVectorOfStructs(biases));
    const auto work = wire::CreateWork(builder, &attempt, prompt_tokens, output, wire_sampling, &tenant, stop_tokens);
    return wire::CreateReserve(builder, work).Union();
  });
}
std::string refusal(const std::vector<std::byte>& bytes) {
  const Result<Envelope> back = decode_message(bytes);
  return back ? "accepted" : std::string(error_name(back.error().code)) + ": " + back.error().detail;
}

TEST(MessageBounds, EveryBoundIsEnforced) {
  EXPECT_EQ(refusal(reserve(kPromptTokensMax, kStopTokensMax, 1)), "accepted");
  EXPECT_EQ(refusal(reserve(kPromptTokensMax + 1, 0, 1)),
            "corrupt: Reserve message: prompt tokens is 1048577, at most 1048576 allowed");
  EXPECT_EQ(refusal(reserve(1, kStopTokensMax + 1, 1)),
            "corrupt: Reserve message: stop tokens is 9, at most 8 allowed");
  EXPECT_EQ(refusal(reserve(1, 0, 0)), "corrupt: Reserve message: output_tokens_max is 0, at least 1 required");
  const wire::Attempt attempt;
  const auto failed = [&](uint8_t code, size_t detail) {
    return refusal(envelope(wire::Body::Failed, [&](flatbuffers::FlatBufferBuilder& builder) {
      return wire::CreateFailed(builder, &attempt, code, builder.CreateString(std::string(detail, 'x'))).Union();
    }));
  };
  EXPECT_EQ(failed(10, kDetailBytesMax), "accepted");
  EXPECT_EQ(failed(11, 0), "corrupt: Failed message: error code is 11, at most 10 allowed");
  EXPECT_EQ(failed(0, kDetailBytesMax + 1), "corrupt: Failed message: detail bytes is 1025, at most 1024 allowed");
  EXPECT_EQ(refusal(envelope(wire::Body::Token,
                             [&](flatbuffers::FlatBufferBuilder& builder) {
                               const wire::NodeTimings timings;
                               const auto none = builder.CreateVectorOfStructs(std::vector<wire::TokenLogprob>{});
                               return wire::CreateToken(builder, &attempt, 0, 0, 3, 0, &timings, none).Union();
                             })),
            "corrupt: Token message: finish reason is 3, at most 2 allowed");
  EXPECT_EQ(refusal(envelope(wire::Body::Lease,
                             [&](flatbuffers::FlatBufferBuilder& builder) {
                               return wire::CreateLease(builder, &attempt, kLeaseMsMax + 1).Union();
                             })),
            "corrupt: Lease message: lease duration_ms is 3600001, at most 3600000 allowed");
  EXPECT_EQ(
      refusal(envelope(wire::Body::PeerInfo,
                       [&](flatbuffers::FlatBufferBuilder& builder) {
                         return wire::CreatePeerInfo(builder, 1, builder.CreateString(std::string(513, 'x'))).Union();
                       })),
      "corrupt: PeerInfo message: control endpoint bytes is 513, at most 512 allowed");
}

TEST(MessageBounds, AShareOfMoreThanIsFreeIsRefused) {
  const auto load = [](uint32_t free, uint32_t share) {
    return refusal(envelope(wire::Body::Load, [&](flatbuffers::FlatBufferBuilder& builder) {
      const wire::NodeTotals totals;
      return wire::CreateLoad(builder, free, 0, 0, 0, 0, 0, 0, &totals, 0, false, share, UINT32_MAX, UINT64_MAX)
          .Union();
    }));
  };
  EXPECT_EQ(load(7, 7), "accepted");
  EXPECT_EQ(load(7, 8), "corrupt: Load message: blocks_share is 8, at most 7 allowed");
}

TEST(MessageBounds, ATraceContextWithAnIdOfZerosIsRefused) {
  const auto traced = [](uint64_t high, uint64_t low, uint64_t parent) {
    return refusal(envelope(wire::Body::Prefill, [&](flatbuffers::FlatBufferBuilder& builder) {
      const wire::Attempt attempt;
      const wire::Bytes32 tenant;
      const wire::TraceContext trace(high, low, parent);
      const auto tokens = builder.CreateVector(std::vector<uint32_t>(1));
      const auto sampling = wire::CreateSampling(builder, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0,
                                                 builder.CreateVectorOfStructs(std::vector<wire::LogitBias>()));
      const auto work = wire::CreateWork(builder, &attempt, tokens, 1, sampling, &tenant, tokens, false, &trace);
      return wire::CreatePrefill(builder, work).Union();
    }));
  };
  EXPECT_EQ(traced(0, 1, 1), "accepted");
  EXPECT_EQ(traced(1, 0, 1), "accepted");
  EXPECT_EQ(traced(0, 0, 1), "corrupt: Prefill message: an id of the trace context is 0");
  EXPECT_EQ(traced(1, 1, 0), "corrupt: Prefill message: an id of the trace context is 0");
}

TEST(MessageBounds, APublicPrefixIsAtLeastATokenAndAtMostThePrompt) {
  const auto with_public = [](uint32_t prompt, uint32_t tokens) {
    return refusal(envelope(wire::Body::Reserve, [&](flatbuffers::FlatBufferBuilder& builder) {
      const wire::Attempt attempt;
      const wire::Bytes32 tenant;
      const wire::PublicPrefix shared(wire::Bytes32(), tokens);
      const auto none = builder.CreateVector(std::vector<uint32_t>());
      const auto words = builder.CreateVector(std::vector<uint32_t>(prompt));
      const auto sampling = wire::CreateSampling(builder, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0,
                                                 builder.CreateVectorOfStructs(std::vector<wire::LogitBias>()));
      const auto work =
          wire::CreateWork(builder, &attempt, words, 1, sampling, &tenant, none, false, nullptr, 0, false, &shared);
      return wire::CreateReserve(builder, work).Union();
    }));
  };
  EXPECT_EQ(with_public(5, 1), "accepted");
  EXPECT_EQ(with_public(5, 5), "accepted");
  EXPECT_EQ(with_public(5, 6), "corrupt: Reserve message: public prefix tokens is 6, at most 5 allowed");
  EXPECT_EQ(with_public(0, 1), "corrupt: Reserve message: public prefix tokens is 1, at most 0 allowed");
  EXPECT_EQ(with_public(5, 0), "corrupt: Reserve message: a public prefix of 0 tokens");
}

TEST(MessageBounds, EveryBoundOfSamplingIsEnforced) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  struct Field {
    std::string_view name;
    float SamplingParams::*value;
    std::vector<float> good, bad;
  };
  const Field fields[] = {
      {"temperature", &SamplingParams::temperature, {0, 2, 1e30f}, {-1}},
      {"top_p", &SamplingParams::top_p, {1e-30f, 1}, {0, 1e-40f, -0.5f, 1.001f}},
      {"min_p", &SamplingParams::min_p, {0, 1}, {-0.001f, 1.001f}},
      {"presence_penalty", &SamplingParams::presence_penalty, {-2, 2}, {-2.001f, 2.001f}},
      {"frequency_penalty", &SamplingParams::frequency_penalty, {-2, 2}, {-2.001f, 2.001f}},
      {"repetition_penalty", &SamplingParams::repetition_penalty, {1e-30f, 2}, {0, 1e-40f, -1, 2.001f}}};
  for (const Field& field : fields) {
    const auto refusal_of = [&](float value) {
      SamplingParams sampling;
      sampling.*field.value = value;
      return refusal(reserve(1, 0, 1, sampling));
    };
    for (const float good : field.good) EXPECT_EQ(refusal_of(good), "accepted") << field.name << " " << good;
    std::vector<float> bad = field.bad;
    bad.insert(bad.end(), {kInfinity, -kInfinity, kNan});
    for (const float value : bad) {
      EXPECT_EQ(refusal_of(value),
                "corrupt: Reserve message: sampling: " + std::string(field.name) + " is out of bounds")
          << value;
    }
  }
  EXPECT_EQ(refusal(reserve(1, 0, 5, {.min_tokens = 5})), "accepted");
  EXPECT_EQ(refusal(reserve(1, 0, 5, {.min_tokens = 6})),
            "corrupt: Reserve message: min_tokens is 6, at most 5 allowed");
  const std::vector<LogitBias> most(kLogitBiasMax, {kTokenIdEnd - 1, -kBiasMax});
  EXPECT_EQ(refusal(reserve(1, 0, 1, {.logit_bias = most})), "accepted");
  EXPECT_EQ(refusal(reserve(1, 0, 1, {.logit_bias = std::vector<LogitBias>(kLogitBiasMax + 1)})),
            "corrupt: Reserve message: logit_bias entries is 301, at most 300 allowed");
  for (const LogitBias& bad :
       {LogitBias{kTokenIdEnd, 0}, LogitBias{0, 100.1f}, LogitBias{0, -kInfinity}, LogitBias{0, kNan}}) {
    EXPECT_EQ(refusal(reserve(1, 0, 1, {.logit_bias = {bad}})),
              "corrupt: Reserve message: sampling: logit_bias is out of bounds");
  }
}

std::vector<std::byte> hello_bytes(uint32_t version, uint8_t role, uint8_t order, uint8_t dtype, size_t name,
                                   size_t bulk, bool colocates = false) {
  return envelope(wire::Body::Hello, [&](flatbuffers::FlatBufferBuilder& builder) {
    const auto name_text = builder.CreateString(std::string(name, 'n'));
    const auto control = builder.CreateString("");
    const auto bulk_bytes = builder.CreateVector(std::vector<uint8_t>(bulk));
    const wire::Bytes16 model;
    const wire::Encoding encoding(order, dtype, 0);
    return wire::CreateHello(builder, version, role, 1, name_text, &model, &encoding, control, bulk_bytes, 0, 0, 0, 0,
                             0, 0, 0, colocates)
        .Union();
  });
}

TEST(MessageBounds, AHelloIsBoundedButAForeignVersionIsReadEnoughToRefuseIt) {
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 2, 1, 1, kNameBytesMax, kEndpointBytesMax)), "accepted");
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 3, 1, 0, 1, 1)),
            "corrupt: Hello message: role is 3, at most 2 allowed");
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 0, 2, 0, 1, 1)),
            "corrupt: Hello message: encoding order is 2, at most 1 allowed");
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 0, 0, 2, 1, 1)),
            "corrupt: Hello message: encoding dtype is 2, at most 1 allowed");
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 0, 0, 0, 65, 1)),
            "corrupt: Hello message: name bytes is 65, at most 64 allowed");
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 0, 0, 0, 1, 513)),
            "corrupt: Hello message: bulk endpoint bytes is 513, at most 512 allowed");
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 2, 0, 0, 1, 1, true)), "accepted");
  EXPECT_EQ(refusal(hello_bytes(kProtocolVersion, 1, 0, 0, 1, 1, true)),
            "corrupt: Hello message: colocates, but is no decode node");
  const Result<Envelope> foreign = decode_message(hello_bytes(kProtocolVersion + 1, 77, 77, 77, 3, 600));
  ASSERT_TRUE(foreign.has_value());
  EXPECT_EQ(std::get<Hello>(foreign->message).protocol_version, kProtocolVersion + 1);
  EXPECT_EQ(std::get<Hello>(foreign->message).name, "nnn");
}

TEST(MessageBounds, AnUnknownMessageTypeIsCorrupt) {
  for (const uint8_t type : {uint8_t{0}, static_cast<uint8_t>(std::variant_size_v<Message> + 1), uint8_t{255}})
    EXPECT_EQ(refusal(envelope(
                  static_cast<wire::Body>(type),
                  [](flatbuffers::FlatBufferBuilder& builder) { return wire::CreateHeartbeat(builder).Union(); })),
              "corrupt: control message of unknown type " + std::to_string(type));
}

TEST(MessageBounds, LogprobsThatJsonOrAReaderCouldNotTakeAreCorrupt) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const auto decoded = [](const Message& message) { return decode_message(encode_message(BootId{1}, message)); };
  const auto token = [&](std::vector<TokenLogprob> list) {
    Token one;
    one.token = 7;
    one.logprobs = std::move(list);
    return decoded(one);
  };
  EXPECT_TRUE(token({{7, -2}, {1, -1}, {7, -2}}));
  EXPECT_TRUE(token({{7, 0}}));
  for (const float bad : {nan, infinity, -infinity, 0.5f})
    EXPECT_FALSE(token({{7, bad}}) || token({{7, -1}, {7, bad}})) << bad;
  EXPECT_FALSE(token({{8, -1}})) << "of another token";
  EXPECT_FALSE(token({{7, -1}, {7, -2}, {1, -1}})) << "not descending";
  EXPECT_TRUE(decoded(PromptLogprobs{{}, 1, 2, {{7, -2}, {1, -1}}}));
  EXPECT_FALSE(decoded(PromptLogprobs{{}, 1, 2, {{7, -2}, {1, -1}, {2, -1}}})) << "half a list";
  EXPECT_FALSE(decoded(PromptLogprobs{{}, 1, kLogprobsMax + 2, {}})) << "lists too long";
}

}  // namespace
}  // namespace spillway

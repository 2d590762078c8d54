// One Message as a FlatBuffer.
#include <algorithm>
#include <bit>
#include <cstring>

#include "common/check.h"
#include "messages_generated.h"
#include "transfer/message_codec.h"

namespace spillway {
namespace {

static_assert(std::endian::native == std::endian::little, "FlatBuffers scalars and KV bytes are little-endian");

template <class Table>
using Offset = flatbuffers::Offset<Table>;

// Longest prefix of at most `bytes_max` bytes that does not split a UTF-8 character.
std::string_view cut_text(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  size_t end = bytes_max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;
  return text.substr(0, end);
}

template <class Wire, class Bytes>
Wire wire_bytes(const Bytes& bytes) {
  static_assert(sizeof(Wire) == sizeof(Bytes));
  Wire wire;
  std::memcpy(&wire, bytes.data(), sizeof wire);
  return wire;
}

wire::Attempt wire_attempt(const Attempt& attempt) {
  return {checked_cast<uint64_t>(attempt.request.boot), attempt.request.counter,
          checked_cast<uint64_t>(attempt.transfer.boot), attempt.transfer.counter,
          checked_cast<uint32_t>(attempt.epoch)};
}

// One overload per message: its wire table.
struct Encoder {
  flatbuffers::FlatBufferBuilder& builder;

  Offset<flatbuffers::String> text(std::string_view value, size_t bytes_max) {
    const std::string_view cut = cut_text(value, bytes_max);
    return builder.CreateString(cut.data(), cut.size());
  }
  Offset<flatbuffers::String> endpoint(const std::string& value) {
    CHECK(value.size() <= kEndpointBytesMax);
    return builder.CreateString(value);
  }
  Offset<wire::Sampling> sampling(const SamplingParams& value) {
    CHECK(!out_of_bounds(value));
    std::vector<wire::LogitBias> biases;
    biases.reserve(value.logit_bias.size());
    for (const LogitBias& one : value.logit_bias) biases.emplace_back(one.token, one.bias);
    return wire::CreateSampling(builder, value.temperature, value.seed, value.choice, value.top_k, value.top_p,
                                value.min_p, value.presence_penalty, value.frequency_penalty, value.repetition_penalty,
                                value.min_tokens, builder.CreateVectorOfStructs(biases));
  }
  auto logprobs(const std::vector<TokenLogprob>& value, size_t count_max) {
    CHECK(value.size() <= count_max);
    std::vector<wire::TokenLogprob> entries;
    entries.reserve(value.size());
    for (const TokenLogprob& one : value) entries.emplace_back(one.token, one.logprob);
    return builder.CreateVectorOfStructs(entries);
  }
  Offset<wire::Work> work(const Work& value) {
    CHECK(value.prompt.size() <= kPromptTokensMax && value.public_prefix.tokens <= value.prompt.size());
    CHECK(value.stop_tokens.size() <= kStopTokensMax);
    CHECK(value.logprob_count <= 1 + kLogprobsMax && (!value.score_prompt || value.logprob_count > 0));
    CHECK(value.output_tokens_max >= 1 && value.sampling.min_tokens <= value.output_tokens_max);
    const wire::Attempt attempt = wire_attempt(value.attempt);
    const auto prompt = builder.CreateVector(value.prompt);
    const auto tenant = wire_bytes<wire::Bytes32>(value.tenant.bytes);
    const auto stop_tokens = builder.CreateVector(value.stop_tokens);
    CHECK(!value.trace || value.trace->valid());
    const TraceContext given = value.trace.value_or(TraceContext{});
    const wire::TraceContext trace(given.trace_high, given.trace_low, given.parent);
    const wire::PublicPrefix shared(wire_bytes<wire::Bytes32>(value.public_prefix.key.bytes),
                                    value.public_prefix.tokens);
    return wire::CreateWork(builder, &attempt, prompt, value.output_tokens_max, sampling(value.sampling), &tenant,
                            stop_tokens, value.digest_logits, value.trace ? &trace : nullptr, value.logprob_count,
                            value.score_prompt, value.public_prefix.tokens > 0 ? &shared : nullptr);
  }

  Offset<wire::Hello> operator()(const Hello& value) {
    CHECK(value.bulk_endpoint.size() <= kEndpointBytesMax);
    CHECK(!value.colocates || value.role == Role::kDecode);
    const auto name = text(value.name, kNameBytesMax);
    const auto model = wire_bytes<wire::Bytes16>(value.model.bytes);
    const wire::Encoding encoding(static_cast<uint8_t>(value.encoding.order),
                                  static_cast<uint8_t>(value.encoding.dtype),
                                  static_cast<uint16_t>(value.encoding.numerics));
    const auto control = endpoint(value.control_endpoint);
    const auto bulk =
        builder.CreateVector(reinterpret_cast<const uint8_t*>(value.bulk_endpoint.data()), value.bulk_endpoint.size());
    return wire::CreateHello(builder, value.protocol_version, static_cast<uint8_t>(value.role),
                             checked_cast<uint64_t>(value.boot), name, &model, &encoding, control, bulk,
                             value.blocks_total, value.sequences_max, value.max_model_len, value.block_tokens,
                             value.canary, value.step_tokens, value.growth_margin, value.colocates);
  }
  Offset<wire::HelloRefused> operator()(const HelloRefused& value) {
    return wire::CreateHelloRefused(builder, text(value.reason, kDetailBytesMax));
  }
  Offset<wire::Load> operator()(const Load& value) {
    const NodeTotals& sum = value.totals;
    const wire::NodeTotals totals(sum.steps, sum.step_tokens, sum.step_sequences, sum.transfers, sum.transfer_failures,
                                  sum.transfer_bytes);
    CHECK(value.blocks_share <= value.blocks_free);
    return wire::CreateLoad(builder, value.blocks_free, value.running_sequences, value.queued_prompt_tokens,
                            value.preempted_sequences, value.preemptions, value.recomputed_tokens, value.blocks_cached,
                            &totals, value.stalled_ms, value.draining, value.blocks_share, value.sequences_share,
                            value.newest_transfer, value.transfer_stalled_ms);
  }
  Offset<wire::PeerInfo> operator()(const PeerInfo& value) {
    return wire::CreatePeerInfo(builder, checked_cast<uint64_t>(value.boot), endpoint(value.control_endpoint));
  }
  Offset<wire::Prefill> operator()(const Prefill& value) {
    return wire::CreatePrefill(builder, work(value.work), checked_cast<uint64_t>(value.decode));
  }
  Offset<wire::Reserve> operator()(const Reserve& value) {
    return wire::CreateReserve(builder, work(value.work), checked_cast<uint64_t>(value.prefill));
  }
  Offset<wire::Grant> operator()(const Grant& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreateGrant(builder, &attempt, value.first_block);
  }
  Offset<wire::PrefillDone> operator()(const PrefillDone& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreatePrefillDone(builder, &attempt, value.prompt_tokens, value.first_token, value.ended);
  }
  Offset<wire::Committed> operator()(const Committed& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreateCommitted(builder, &attempt);
  }
  Offset<wire::Lease> operator()(const Lease& value) {
    CHECK(value.duration_ms <= kLeaseMsMax);
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreateLease(builder, &attempt, value.duration_ms);
  }
  Offset<wire::Token> operator()(const Token& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    const wire::NodeTimings timings(value.timings.wait_us, value.timings.compute_us, value.timings.transfer_us,
                                    value.timings.commit_us, value.timings.cached_tokens);
    return wire::CreateToken(builder, &attempt, value.index, value.token, static_cast<uint8_t>(value.finish),
                             value.logits_digest, &timings, logprobs(value.logprobs, 1 + kLogprobsMax));
  }
  Offset<wire::PromptLogprobs> operator()(const PromptLogprobs& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreatePromptLogprobs(
        builder, &attempt, value.position_first, value.logprob_count,
        logprobs(value.logprobs, size_t{kScoredTokensMax} * std::min(value.logprob_count, 1 + kLogprobsMax)));
  }
  Offset<wire::Cancel> operator()(const Cancel& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreateCancel(builder, &attempt);
  }
  Offset<wire::Yield> operator()(const Yield& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreateYield(builder, &attempt);
  }
  Offset<wire::Failed> operator()(const Failed& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreateFailed(builder, &attempt, static_cast<uint8_t>(value.code), text(value.detail, kDetailBytesMax));
  }
  Offset<wire::Heartbeat> operator()(const Heartbeat&) { return wire::CreateHeartbeat(builder); }
  Offset<wire::MayLeave> operator()(const MayLeave&) { return wire::CreateMayLeave(builder); }
  Offset<wire::Want> operator()(const Want& value) { return wire::CreateWant(builder, value.blocks); }
};

template <class Table>
wire::Body body_type(Offset<Table>) {
  return wire::BodyTraits<Table>::enum_value;
}

}  // namespace

std::vector<std::byte> encode_message(BootId sender, const Message& message) {
  flatbuffers::FlatBufferBuilder builder(256);
  Encoder encoder{builder};
  std::visit(
      [&](const auto& value) {
        const auto table = encoder(value);
        wire::FinishEnvelopeBuffer(
            builder, wire::CreateEnvelope(builder, checked_cast<uint64_t>(sender), body_type(table), table.Union()));
      },
      message);
  const auto* const bytes = reinterpret_cast<const std::byte*>(builder.GetBufferPointer());
  return {bytes, bytes + builder.GetSize()};
}

}  // namespace spillway

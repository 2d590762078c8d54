#include "transfer/message_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>

#include "common/check.h"
#include "messages_generated.h"

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
    CHECK(value.prompt.size() <= kPromptTokensMax);
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
    return wire::CreateWork(builder, &attempt, prompt, value.output_tokens_max, sampling(value.sampling), &tenant,
                            stop_tokens, value.digest_logits, value.trace ? &trace : nullptr, value.logprob_count,
                            value.score_prompt);
  }

  Offset<wire::Hello> operator()(const Hello& value) {
    CHECK(value.bulk_endpoint.size() <= kEndpointBytesMax);
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
                             value.canary, value.step_tokens, value.growth_margin);
  }
  Offset<wire::HelloRefused> operator()(const HelloRefused& value) {
    return wire::CreateHelloRefused(builder, text(value.reason, kDetailBytesMax));
  }
  Offset<wire::Load> operator()(const Load& value) {
    const NodeTotals& sum = value.totals;
    const wire::NodeTotals totals(sum.steps, sum.step_tokens, sum.step_sequences, sum.transfers, sum.transfer_failures,
                                  sum.transfer_bytes);
    return wire::CreateLoad(builder, value.blocks_free, value.running_sequences, value.queued_prompt_tokens,
                            value.preempted_sequences, value.preemptions, value.recomputed_tokens, value.blocks_cached,
                            &totals, value.stalled_ms, value.draining);
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
  Offset<wire::Failed> operator()(const Failed& value) {
    const wire::Attempt attempt = wire_attempt(value.attempt);
    return wire::CreateFailed(builder, &attempt, static_cast<uint8_t>(value.code), text(value.detail, kDetailBytesMax));
  }
  Offset<wire::Heartbeat> operator()(const Heartbeat&) { return wire::CreateHeartbeat(builder); }
  Offset<wire::MayLeave> operator()(const MayLeave&) { return wire::CreateMayLeave(builder); }
};

// Reads verified tables. The first bound that is broken is kept in `wrong`; the message is then worthless.
struct Decoder {
  std::string wrong;

  void require(bool holds, std::string_view what, uint64_t value, uint64_t most) {
    if (!holds && wrong.empty()) wrong = fmt::format("{} is {}, at most {} allowed", what, value, most);
  }
  template <class Enum>
  Enum ranged(uint8_t value, Enum last, std::string_view what) {
    require(value <= static_cast<uint8_t>(last), what, value, static_cast<uint8_t>(last));
    return value <= static_cast<uint8_t>(last) ? static_cast<Enum>(value) : last;
  }
  std::string text(const flatbuffers::String* value, size_t bytes_max, std::string_view what) {
    require(value->size() <= bytes_max, what, value->size(), bytes_max);
    return std::string(value->c_str(), std::min<size_t>(value->size(), bytes_max));
  }
  std::vector<TokenId> tokens(const flatbuffers::Vector<uint32_t>* value, size_t count_max, std::string_view what) {
    require(value->size() <= count_max, what, value->size(), count_max);
    return std::vector<TokenId>(value->data(), value->data() + std::min<size_t>(value->size(), count_max));
  }
  static Attempt attempt(const wire::Attempt* value) {
    return {{BootId{value->request_boot()}, value->request_counter()},
            {BootId{value->transfer_boot()}, value->transfer_counter()},
            Epoch{value->epoch()}};
  }
  SamplingParams sampling(const wire::Sampling& value) {
    SamplingParams out{.temperature = value.temperature(),
                       .seed = value.seed(),
                       .choice = value.choice(),
                       .top_k = value.top_k(),
                       .top_p = value.top_p(),
                       .min_p = value.min_p(),
                       .presence_penalty = value.presence_penalty(),
                       .frequency_penalty = value.frequency_penalty(),
                       .repetition_penalty = value.repetition_penalty(),
                       .min_tokens = value.min_tokens()};
    const auto& biases = *value.logit_bias();
    require(biases.size() <= kLogitBiasMax, "logit_bias entries", biases.size(), kLogitBiasMax);
    if (!wrong.empty()) return out;
    for (const wire::LogitBias* const one : biases) out.logit_bias.push_back({one->token(), one->bias()});
    if (const auto field = out_of_bounds(out)) wrong = fmt::format("sampling: {} is out of bounds", *field);
    return out;
  }
  // Lists of `each` entries, one a token: what JSON can carry, and in order.
  std::vector<TokenLogprob> logprobs(const flatbuffers::Vector<const wire::TokenLogprob*>& value, size_t each,
                                     size_t tokens_max) {
    require(each <= 1 + kLogprobsMax, "logprob_count", each, 1 + kLogprobsMax);
    require(value.size() <= each * tokens_max, "logprobs", value.size(), each * tokens_max);
    std::vector<TokenLogprob> out;
    if (!wrong.empty() || value.size() == 0) return out;
    if (value.size() % each != 0) wrong = fmt::format("{} logprobs are no lists of {}", value.size(), each);
    for (const wire::TokenLogprob* const one : value) {
      const TokenLogprob entry{one->token(), one->logprob()};
      if (!std::isfinite(entry.logprob) || entry.logprob > 0) wrong = "a logprob is not finite or above 0";
      const bool ranked = out.size() % each >= 2;  // the first is the token itself, the second the highest
      if (ranked && entry.logprob > out.back().logprob) wrong = "logprobs are out of order";
      out.push_back(entry);
    }
    return out;
  }
  Work work(const wire::Work* value) {
    Work out;
    out.attempt = attempt(value->attempt());
    out.prompt = tokens(value->prompt(), kPromptTokensMax, "prompt tokens");
    out.output_tokens_max = value->output_tokens_max();
    if (out.output_tokens_max == 0 && wrong.empty()) wrong = "output_tokens_max is 0, at least 1 required";
    out.sampling = sampling(*value->sampling());
    require(out.sampling.min_tokens <= out.output_tokens_max, "min_tokens", out.sampling.min_tokens,
            out.output_tokens_max);
    std::memcpy(out.tenant.bytes.data(), value->tenant(), sizeof out.tenant.bytes);
    out.stop_tokens = tokens(value->stop_tokens(), kStopTokensMax, "stop tokens");
    out.digest_logits = value->digest_logits();
    if (const wire::TraceContext* const trace = value->trace()) {
      out.trace = {trace->trace_high(), trace->trace_low(), trace->parent()};
      if (!out.trace->valid() && wrong.empty()) wrong = "an id of the trace context is 0";
    }
    out.logprob_count = value->logprob_count();
    require(out.logprob_count <= 1 + kLogprobsMax, "logprob_count", out.logprob_count, 1 + kLogprobsMax);
    out.score_prompt = value->score_prompt();
    if (out.score_prompt && out.logprob_count == 0 && wrong.empty()) wrong = "score_prompt without a logprob_count";
    return out;
  }

  Message operator()(const wire::Hello& value) {
    Hello out;
    out.protocol_version = value.protocol_version();
    out.boot = BootId{value.boot()};
    out.name = text(value.name(), kNameBytesMax, "name bytes");
    std::memcpy(out.model.bytes.data(), value.model(), sizeof out.model.bytes);
    if (out.protocol_version != kProtocolVersion) return out;
    out.role = ranged(value.role(), Role::kDecode, "role");
    out.encoding.order = ranged(value.encoding()->order(), BlockEncoding::Order::kCpuTiled, "encoding order");
    out.encoding.dtype = ranged(value.encoding()->dtype(), BlockEncoding::Dtype::kBf16, "encoding dtype");
    out.encoding.numerics = NumericsClass{value.encoding()->numerics()};
    out.control_endpoint = text(value.control_endpoint(), kEndpointBytesMax, "control endpoint bytes");
    const auto* const bulk = value.bulk_endpoint();
    require(bulk->size() <= kEndpointBytesMax, "bulk endpoint bytes", bulk->size(), kEndpointBytesMax);
    const auto* const bytes = reinterpret_cast<const std::byte*>(bulk->data());
    out.bulk_endpoint.assign(bytes, bytes + std::min<size_t>(bulk->size(), kEndpointBytesMax));
    out.blocks_total = value.blocks_total();
    out.sequences_max = value.sequences_max();
    out.max_model_len = value.max_model_len();
    out.block_tokens = value.block_tokens();
    out.canary = value.canary();
    out.step_tokens = value.step_tokens();
    out.growth_margin = value.growth_margin();
    return out;
  }
  Message operator()(const wire::HelloRefused& value) {
    return HelloRefused{text(value.reason(), kDetailBytesMax, "reason bytes")};
  }
  Message operator()(const wire::Load& value) {
    const wire::NodeTotals& sum = *value.totals();
    return Load{value.blocks_free(),
                value.running_sequences(),
                value.queued_prompt_tokens(),
                value.preempted_sequences(),
                value.preemptions(),
                value.recomputed_tokens(),
                value.blocks_cached(),
                {sum.steps(), sum.step_tokens(), sum.step_sequences(), sum.transfers(), sum.transfer_failures(),
                 sum.transfer_bytes()},
                value.stalled_ms(),
                value.draining()};
  }
  Message operator()(const wire::PeerInfo& value) {
    return PeerInfo{BootId{value.boot()}, text(value.control_endpoint(), kEndpointBytesMax, "control endpoint bytes")};
  }
  Message operator()(const wire::Prefill& value) { return Prefill{work(value.work()), BootId{value.decode()}}; }
  Message operator()(const wire::Reserve& value) { return Reserve{work(value.work()), BootId{value.prefill()}}; }
  Message operator()(const wire::Grant& value) { return Grant{attempt(value.attempt()), value.first_block()}; }
  Message operator()(const wire::PrefillDone& value) {
    return PrefillDone{attempt(value.attempt()), value.prompt_tokens(), value.first_token(), value.ended()};
  }
  Message operator()(const wire::Committed& value) { return Committed{attempt(value.attempt())}; }
  Message operator()(const wire::Lease& value) {
    require(value.duration_ms() <= kLeaseMsMax, "lease duration_ms", value.duration_ms(), kLeaseMsMax);
    return Lease{attempt(value.attempt()), value.duration_ms()};
  }
  Message operator()(const wire::Token& value) {
    const wire::NodeTimings& timings = *value.timings();
    Token token{
        attempt(value.attempt()),
        value.index(),
        value.token(),
        ranged(value.finish(), FinishReason::kLength, "finish reason"),
        value.logits_digest(),
        {timings.wait_us(), timings.compute_us(), timings.transfer_us(), timings.commit_us(), timings.cached_tokens()}};
    token.logprobs = logprobs(*value.logprobs(), value.logprobs()->size(), 1);
    if (!token.logprobs.empty() && token.logprobs.front().token != token.token && wrong.empty())
      wrong = "the first logprob is not the token's";
    return token;
  }
  Message operator()(const wire::PromptLogprobs& value) {
    return PromptLogprobs{attempt(value.attempt()), value.position_first(), value.logprob_count(),
                          logprobs(*value.logprobs(), value.logprob_count(), kScoredTokensMax)};
  }
  Message operator()(const wire::Cancel& value) { return Cancel{attempt(value.attempt())}; }
  Message operator()(const wire::Failed& value) {
    return Failed{attempt(value.attempt()), ranged(value.code(), ErrorCode::kInternal, "error code"),
                  text(value.detail(), kDetailBytesMax, "detail bytes")};
  }
  Message operator()(const wire::Heartbeat&) { return Heartbeat{}; }
  Message operator()(const wire::MayLeave&) { return MayLeave{}; }
};

template <class Table>
wire::Body body_type(Offset<Table>) {
  return wire::BodyTraits<Table>::enum_value;
}

// Nothing for a body type that this protocol version does not have.
std::optional<Message> decode_body(Decoder& decoder, const wire::Envelope& envelope) {
  switch (envelope.body_type()) {
    case wire::Body::NONE: return std::nullopt;
    case wire::Body::Hello: return decoder(*envelope.body_as_Hello());
    case wire::Body::HelloRefused: return decoder(*envelope.body_as_HelloRefused());
    case wire::Body::Load: return decoder(*envelope.body_as_Load());
    case wire::Body::PeerInfo: return decoder(*envelope.body_as_PeerInfo());
    case wire::Body::Prefill: return decoder(*envelope.body_as_Prefill());
    case wire::Body::Reserve: return decoder(*envelope.body_as_Reserve());
    case wire::Body::Grant: return decoder(*envelope.body_as_Grant());
    case wire::Body::PrefillDone: return decoder(*envelope.body_as_PrefillDone());
    case wire::Body::Committed: return decoder(*envelope.body_as_Committed());
    case wire::Body::Lease: return decoder(*envelope.body_as_Lease());
    case wire::Body::Token: return decoder(*envelope.body_as_Token());
    case wire::Body::Cancel: return decoder(*envelope.body_as_Cancel());
    case wire::Body::Failed: return decoder(*envelope.body_as_Failed());
    case wire::Body::PromptLogprobs: return decoder(*envelope.body_as_PromptLogprobs());
    case wire::Body::Heartbeat: return decoder(*envelope.body_as_Heartbeat());
    case wire::Body::MayLeave: return decoder(*envelope.body_as_MayLeave());
  }
  return std::nullopt;
}

Result<Envelope> decode_aligned(std::span<const std::byte> bytes) {
  const auto* const data = reinterpret_cast<const uint8_t*>(bytes.data());
  flatbuffers::Verifier::Options limits;
  limits.max_depth = 4;  // Envelope, body, Work, Sampling
  limits.max_tables = 4;
  flatbuffers::Verifier verifier(data, bytes.size(), limits);
  if (!wire::VerifyEnvelopeBuffer(verifier))
    return fail(ErrorCode::kCorrupt, fmt::format("control message of {} bytes is not a valid envelope", bytes.size()));
  const wire::Envelope& envelope = *wire::GetEnvelope(data);
  Decoder decoder;
  std::optional<Message> message = decode_body(decoder, envelope);
  if (!message)
    return fail(ErrorCode::kCorrupt,
                fmt::format("control message of unknown type {}", static_cast<unsigned>(envelope.body_type())));
  if (!decoder.wrong.empty())
    return fail(ErrorCode::kCorrupt, fmt::format("{} message: {}", message_name(*message), decoder.wrong));
  return Envelope{BootId{envelope.sender()}, std::move(*message)};
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

Result<Envelope> decode_message(std::span<const std::byte> bytes) {
  // Wire structs hold 8-byte scalars that are read in place; ZeroMQ delivers small messages at any address.
  constexpr size_t kAlignment = alignof(uint64_t);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kAlignment == 0) return decode_aligned(bytes);
  std::vector<uint64_t> aligned((bytes.size() + sizeof(uint64_t) - 1) / sizeof(uint64_t));
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  return decode_aligned({reinterpret_cast<const std::byte*>(aligned.data()), bytes.size()});
}

}  // namespace spillway

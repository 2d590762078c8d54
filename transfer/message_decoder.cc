// A Message from bytes that a stranger may have sent.
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <optional>

#include "messages_generated.h"
#include "transfer/message_codec.h"

namespace spillway {
namespace {

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
    if (const wire::PublicPrefix* const shared = value->public_prefix()) {
      std::memcpy(out.public_prefix.key.bytes.data(), &shared->key(), sizeof out.public_prefix.key.bytes);
      out.public_prefix.tokens = shared->tokens();
      require(shared->tokens() <= out.prompt.size(), "public prefix tokens", shared->tokens(), out.prompt.size());
      if (shared->tokens() == 0 && wrong.empty()) wrong = "a public prefix of 0 tokens";
    }
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
    out.encoding.dtype = ranged(value.encoding()->dtype(), KvDtype::kInt8, "encoding dtype");
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
    out.colocates = value.colocates();
    if (out.colocates && out.role != Role::kDecode && wrong.empty()) wrong = "colocates, but is no decode node";
    return out;
  }
  Message operator()(const wire::HelloRefused& value) {
    return HelloRefused{text(value.reason(), kDetailBytesMax, "reason bytes")};
  }
  Message operator()(const wire::Load& value) {
    const wire::NodeTotals& sum = *value.totals();
    require(value.blocks_share() <= value.blocks_free(), "blocks_share", value.blocks_share(), value.blocks_free());
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
                value.draining(),
                value.blocks_share(),
                value.sequences_share(),
                value.newest_transfer(),
                value.transfer_stalled_ms()};
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
  Message operator()(const wire::Yield& value) { return Yield{attempt(value.attempt())}; }
  Message operator()(const wire::Failed& value) {
    return Failed{attempt(value.attempt()), ranged(value.code(), ErrorCode::kInternal, "error code"),
                  text(value.detail(), kDetailBytesMax, "detail bytes")};
  }
  Message operator()(const wire::Heartbeat&) { return Heartbeat{}; }
  Message operator()(const wire::MayLeave&) { return MayLeave{}; }
  Message operator()(const wire::Want& value) { return Want{value.blocks()}; }
};

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
    case wire::Body::Want: return decoder(*envelope.body_as_Want());
    case wire::Body::Yield: return decoder(*envelope.body_as_Yield());
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

Result<Envelope> decode_message(std::span<const std::byte> bytes) {
  // Wire structs hold 8-byte scalars that are read in place; ZeroMQ delivers small messages at any address.
  constexpr size_t kAlignment = alignof(uint64_t);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kAlignment == 0) return decode_aligned(bytes);
  std::vector<uint64_t> aligned((bytes.size() + sizeof(uint64_t) - 1) / sizeof(uint64_t));
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  return decode_aligned({reinterpret_cast<const std::byte*>(aligned.data()), bytes.size()});
}

}  // namespace spillway

#include "simulator/synthetic_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "kv/digest.h"
#include "simulator/random.h"

namespace spillway {
namespace {

void expand(std::span<std::byte> row, uint64_t state) {
  CHECK(row.size() % sizeof state == 0);
  for (size_t offset = 0; offset < row.size(); offset += sizeof state) {
    const uint64_t word = offset == 0 ? state : mix64(state + offset);
    std::memcpy(row.data() + offset, &word, sizeof word);
  }
}

}  // namespace

uint64_t SyntheticModel::next_state(uint64_t previous, TokenId token, uint16_t layer) {
  return mix64(mix64(previous ^ token) + layer);
}

void SyntheticModel::write_row(std::span<std::byte> part, uint32_t row, uint64_t state) const {
  CHECK(part.size() == layout.part_bytes() && row < layout.block_tokens);
  if (row == 0) std::ranges::fill(part, std::byte{0});
  expand(part.subspan(row * row_bytes(), row_bytes()), state);
  expand(part.subspan(layout.k_bytes() + row * row_bytes(), row_bytes()), ~state);
  if (layout.dtype != KvDtype::kInt8) return;
  for (uint32_t head = 0; head < 2u * layout.kv_heads; ++head) {  // scales of K, then of V
    const auto scale = static_cast<uint32_t>(mix64(state + head + 1));
    const size_t index = size_t{head} * layout.block_tokens + row;
    std::memcpy(&part[2 * layout.k_bytes() + index * sizeof scale], &scale, sizeof scale);
  }
}

uint64_t SyntheticModel::read_row(std::span<const std::byte> part, uint32_t row) const {
  uint64_t state = 0;
  std::memcpy(&state, part.data() + row * row_bytes(), sizeof state);
  return state;
}

uint64_t SyntheticModel::fold(uint64_t digest, std::span<const std::byte> part) {
  return mix64(digest ^ part_digest(part));
}

TokenId SyntheticModel::sample(uint64_t digest, const SampleRow& row) {
  const SamplingParams& params = row.params;
  uint64_t drawn = mix64(digest + row.position);
  if (params.temperature > 0) {
    drawn = mix64(drawn ^ params.seed ^ std::bit_cast<uint32_t>(params.temperature));
    drawn = mix64(drawn ^ params.top_k ^ (uint64_t{std::bit_cast<uint32_t>(params.top_p)} << 32));
  }
  if (params.looks_back()) {
    drawn = mix64(drawn ^ row.prompt_tokens);
    for (const TokenId token : row.history) drawn = mix64(drawn ^ token);
  }
  const auto withheld = [&](TokenId token) {
    return std::ranges::any_of(params.logit_bias,
                               [&](const LogitBias& one) { return one.token == token && std::isinf(one.bias); });
  };
  auto token = static_cast<TokenId>(drawn % kVocab);
  while (withheld(token)) token = (token + 1) % kVocab;
  return token;
}

namespace {

// The row of the token after `context`, as any node must make it.
SampleRow row_after(std::span<const TokenId> context, const GenerateRequest& request) {
  SampleRow row;
  row.params = request.sampling;
  row.position = static_cast<uint32_t>(context.size());
  row.prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  row.history = context;
  if (context.size() - request.prompt.size() < request.sampling.min_tokens) {
    for (const TokenId token : request.stop_tokens) row.params.logit_bias.push_back({token, -HUGE_VALF});
  }
  return row;
}

}  // namespace

ReferenceAnswer reference_answer(const SyntheticModel& model, const GenerateRequest& request) {
  const KvLayout& layout = model.layout;
  std::vector<std::vector<std::byte>> parts;  // [block][layer]
  std::vector<uint64_t> states(layout.layer_count, SyntheticModel::kFirstState);
  std::vector<TokenId> context;
  uint64_t sealed_digest = 0, digest = 0;
  const auto append = [&](TokenId token) {
    const auto row = static_cast<uint32_t>(context.size() % layout.block_tokens);
    if (row == 0) {
      sealed_digest = digest;
      parts.assign(layout.layer_count, std::vector<std::byte>(layout.part_bytes()));
    }
    digest = sealed_digest;
    for (uint16_t layer = 0; layer < layout.layer_count; ++layer) {
      states[layer] = SyntheticModel::next_state(states[layer], token, layer);
      model.write_row(parts[layer], row, states[layer]);
      digest = SyntheticModel::fold(digest, parts[layer]);
    }
    context.push_back(token);
  };
  for (const TokenId token : request.prompt) append(token);
  ReferenceAnswer answer;
  while (answer.finish == FinishReason::kNone) {
    const TokenId token = SyntheticModel::sample(digest, row_after(context, request));
    answer.tokens.push_back(token);
    answer.digests.push_back(digest);
    if (std::ranges::count(request.stop_tokens, token) > 0) {
      answer.finish = FinishReason::kStop;
    } else if (answer.tokens.size() == request.output_tokens_max) {
      answer.finish = FinishReason::kLength;
    }
    append(token);
  }
  return answer;
}

}  // namespace spillway

#include "simulator/synthetic_model.h"

#include <algorithm>
#include <bit>
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
}

uint64_t SyntheticModel::read_row(std::span<const std::byte> part, uint32_t row) const {
  uint64_t state = 0;
  std::memcpy(&state, part.data() + row * row_bytes(), sizeof state);
  return state;
}

uint64_t SyntheticModel::fold(uint64_t digest, std::span<const std::byte> part) {
  return mix64(digest ^ part_digest(part));
}

TokenId SyntheticModel::sample(uint64_t digest, const SamplingParams& params, uint32_t position) {
  uint64_t drawn = mix64(digest + position);
  if (params.temperature > 0) drawn = mix64(drawn ^ params.seed ^ std::bit_cast<uint32_t>(params.temperature));
  return static_cast<TokenId>(drawn % kVocab);
}

ReferenceAnswer reference_answer(const SyntheticModel& model, const GenerateRequest& request) {
  const KvLayout& layout = model.layout;
  const SamplingParams params{request.temperature, request.seed, 0};
  std::vector<std::vector<std::byte>> parts;  // [block][layer]
  std::vector<uint64_t> states(layout.layer_count, SyntheticModel::kFirstState);
  uint32_t position = 0;
  uint64_t sealed_digest = 0, digest = 0;
  const auto append = [&](TokenId token) {
    const uint32_t row = position % layout.block_tokens;
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
    ++position;
  };
  for (const TokenId token : request.prompt) append(token);
  ReferenceAnswer answer;
  while (answer.finish == FinishReason::kNone) {
    const TokenId token = SyntheticModel::sample(digest, params, position);
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

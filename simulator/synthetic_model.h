#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"
#include "gateway/request_table.h"
#include "kernels/sample.h"
#include "kv/block.h"
#include "transfer/messages.h"

namespace spillway {

// A model without weights whose answer depends on every byte of its KV. Row i of layer l is a pseudo-random expansion
// of
//   state(i, l) = mix(state(i - 1, l), token i, l),
// where state(i - 1, l) is read back from row i - 1; a sampled token is a hash of the digests of all parts of all
// blocks so far, unused rows included, which are zero. So a wrong, stale, torn or swapped block changes the tokens, and
// what is right is a pure function of the prompt. Pure; any thread.
struct SyntheticModel {
  static constexpr uint32_t kVocab = 997;
  KvLayout layout;

  static uint64_t next_state(uint64_t previous, TokenId token, uint16_t layer);
  static constexpr uint64_t kFirstState = 0;  // before position 0

  // One row of a part; `part` is layout.part_bytes() long. Row 0 zeroes the rest of the part first.
  void write_row(std::span<std::byte> part, uint32_t row, uint64_t state) const;
  uint64_t read_row(std::span<const std::byte> part, uint32_t row) const;
  // Digest of a context: fold the digests of its parts, block by block and layer by layer, from 0.
  static uint64_t fold(uint64_t digest, std::span<const std::byte> part);
  // Depends on the parameters too, and on the history where they look back; never a token biased by -infinity.
  static TokenId sample(uint64_t digest, const SampleRow& row);

  // Of K; of V as many.
  size_t row_bytes() const { return size_t{layout.kv_heads} * layout.head_dim * layout.value_bytes(); }
};

struct ReferenceAnswer {
  std::vector<TokenId> tokens;
  std::vector<uint64_t> digests;  // of the context that each was sampled from
  FinishReason finish{};
};
// What any arrangement of nodes must answer.
ReferenceAnswer reference_answer(const SyntheticModel& model, const GenerateRequest& request);

}  // namespace spillway

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/gguf_writer.h"

namespace spillway {

// The metadata of a small SentencePiece tokeniser, for tests to change: tokens of every kind, the 256 byte tokens, and
// pieces over a few characters, among them two of equal score and one whose first character is no piece.
struct SpmVocabulary {
  static constexpr uint32_t kUnknown = 0, kBegin = 1, kEnd = 2, kUserDefined = 3, kUnused = 4, kFirstByte = 5,
                            kFirstPiece = 261;
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;

  SpmVocabulary();
  // The id of the piece written so. REQUIRES: it is there.
  uint32_t id(std::string_view piece) const;
  // tokenizer.ggml.*, without add_bos_token and add_space_prefix.
  GgufWriter writer() const;
};

}  // namespace spillway

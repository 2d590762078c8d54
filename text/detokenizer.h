#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace spillway {

// Token ids of one stream to text, a piece at a time. Never splits a UTF-8 character: bytes of an unfinished one wait
// (at most 3); invalid bytes become U+FFFD. Special tokens give no text, nor do ids beyond the
// vocabulary: an embedding may have more rows than the tokeniser has tokens, and ids come from other processes. The
// text does not depend on how the same bytes were cut into tokens. Borrows the tokenizer. One thread.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // Text that this token completed, possibly none.
  std::string push(TokenId token);
  std::string push_bytes(std::string_view bytes);  // the same of bytes that some token stands for
  std::string finish();  // one U+FFFD if a character was left unfinished; the next push() begins anew

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace spillway

#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace spillway {

// Cuts text into the words that BPE merges within, by the pattern of the model's own tokenizer.json. `gpt-2`: GPT-2's;
// `smollm`: every digit by itself, and what lies between digits by GPT-2's, as tokenizers' Digits(individual_digits)
// and ByteLevel do one after the other; `llama-bpe` (also llama3, llama-v3): Llama 3's, digits in threes; `qwen2` (also
// deepseek-r1-qwen): the same with single digits. The patterns are written so that a match never goes back over more
// than a character: time is linear in the text. PCRE2, compiled to machine code where the system allows it. Immutable
// after create(): any thread may call the const functions.
class PreTokenizer {
 public:
  // `name`: the value of `tokenizer.ggml.pre`. kUnsupported naming it and what is supported.
  static Result<PreTokenizer> create(std::string_view name);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Appends the words of `text` to `words`, as views into it; together they are the whole text. REQUIRES: valid UTF-8
  // (the matcher does not check it again). kInvalidArgument when PCRE2's limits on matching work or memory are hit.
  Result<void> split(std::string_view text, std::vector<std::string_view>& words) const;
  // The same from byte `from`, where a word begins, and at most `words_max` words. Returns where the next one begins.
  Result<size_t> split_some(std::string_view text, size_t from, size_t words_max,
                            std::vector<std::string_view>& words) const;
  // What goes with the name: a word that is a token is not merged anew (Llama 3); prompts begin with BOS where the
  // file does not say (Llama 3).
  bool keeps_whole_words() const;
  bool adds_begin_of_sequence() const;

 private:
  struct Pattern;
  explicit PreTokenizer(std::unique_ptr<const Pattern> pattern);
  std::unique_ptr<const Pattern> pattern_;
};

}  // namespace spillway

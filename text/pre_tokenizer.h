#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace spillway {

// Cuts text into the words that BPE merges within. `smollm`: every digit by itself, and what lies between digits by
// GPT-2's pattern, as tokenizers' Digits(individual_digits) and ByteLevel do one after the other. PCRE2, compiled to
// machine code where the system allows it. Immutable after create(): any thread may call split().
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

 private:
  struct Pattern;
  explicit PreTokenizer(std::unique_ptr<const Pattern> pattern);
  std::unique_ptr<const Pattern> pattern_;
};

}  // namespace spillway

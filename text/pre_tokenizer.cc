#include "text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/quote.h"

namespace spillway {
namespace {

// Limits of one match, that is of one word. The patterns need a step or two a word, and one for each blank behind the
// last line end of a run; what the limits are for is a mistake in a pattern, which must end in an error and not in a
// hanging server.
constexpr uint32_t kMatchStepsMax = 16 << 20;  // four times the longest text
constexpr uint32_t kHeapKibMax = 64 * 1024;

// Inside brackets. White_Space of Unicode, spelt out: PCRE2's \s also has U+180E, which other tokenizers count as a
// symbol.
#define SPILLWAY_SPACE R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"

// Where no match needs it a repetition is possessive; `\s+(?!\S)` gives back one character at most.
#define SPILLWAY_SPACE_WORDS R"([)" SPILLWAY_SPACE R"(]+(?![^)" SPILLWAY_SPACE R"(])|[)" SPILLWAY_SPACE R"(]++)"

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
constexpr std::string_view kGpt2 =
    R"('(?:[stmd]|re|ve|ll)| ?\p{L}++| ?\p{N}++| ?[^\p{L}\p{N})" SPILLWAY_SPACE R"(]++|)" SPILLWAY_SPACE_WORDS;

// One pattern for both steps. GPT-2's sees the text between two digits as a whole text: a digit is to it what the end
// is, hence \p{N} in the lookahead.
constexpr std::string_view kSmollm =
    R"(\p{N}|'(?:[stmd]|re|ve|ll)| ?\p{L}++| ?[^\p{L}\p{N})" SPILLWAY_SPACE R"(]++|[)" SPILLWAY_SPACE
    R"(]+(?![^\p{N})" SPILLWAY_SPACE R"(])|[)" SPILLWAY_SPACE R"(]++)";

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
// \s+(?!\S)|\s+ and Qwen2's with \p{N}. \s*[\r\n]+ ends at the last line end of a run of white space,
// as does \s*[\r\n], which goes back over the blanks behind it: once a run, for the next match begins there.
#define SPILLWAY_LLAMA3(digits)                                                                          \
  R"('(?i:[stmd]|re|ve|ll)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N})" digits R"(| ?[^\p{L}\p{N})" SPILLWAY_SPACE \
  R"(]++[\r\n]*+)"                                                                                       \
  R"(|[)" SPILLWAY_SPACE R"(]*[\r\n]|)" SPILLWAY_SPACE_WORDS
constexpr std::string_view kLlama3 = SPILLWAY_LLAMA3("{1,3}+"), kQwen2 = SPILLWAY_LLAMA3("");
#undef SPILLWAY_LLAMA3
#undef SPILLWAY_SPACE_WORDS
#undef SPILLWAY_SPACE

struct Known {
  std::string_view name, pattern;
  bool keeps_whole_words = false, adds_begin = false;
};
constexpr Known kKnown[] = {{"gpt-2", kGpt2},
                            {"smollm", kSmollm},
                            {"llama-bpe", kLlama3, true, true},
                            {"llama3", kLlama3, true, true},
                            {"llama-v3", kLlama3, true, true},
                            {"qwen2", kQwen2},
                            {"deepseek-r1-qwen", kQwen2}};

template <auto kFree>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Freer<pcre2_code_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freer<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freer<pcre2_match_data_free>>;

std::string pcre2_message(int code) {
  char text[256] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text);
  return text;
}

}  // namespace

struct PreTokenizer::Pattern {
  const Known* known = nullptr;
  Code code;
  MatchContext limits;
};

PreTokenizer::PreTokenizer(std::unique_ptr<const Pattern> pattern) : pattern_(std::move(pattern)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::create(std::string_view name) {
  const Known* const known = std::ranges::find(kKnown, name, &Known::name);
  if (known == std::end(kKnown))
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("tokenizer.ggml.pre is {}; supported are gpt-2, llama-bpe, qwen2 and smollm", quote_foreign(name)));
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  auto pattern = std::make_unique<Pattern>();
  pattern->known = known;
  // Anchored here: as an option of the match it would turn machine code off (pcre2jit(3)).
  pattern->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(known->pattern.data()), known->pattern.size(),
                                    PCRE2_UTF | PCRE2_ANCHORED, &error, &error_offset, nullptr));
  CHECK(pattern->code != nullptr);
  // Where memory may not be executable this fails, and matching goes on interpreted: slower, the same words.
  pcre2_jit_compile(pattern->code.get(), PCRE2_JIT_COMPLETE);
  pattern->limits.reset(pcre2_match_context_create(nullptr));
  CHECK(pattern->limits != nullptr);
  pcre2_set_match_limit(pattern->limits.get(), kMatchStepsMax);
  pcre2_set_heap_limit(pattern->limits.get(), kHeapKibMax);
  return PreTokenizer(std::move(pattern));
}

bool PreTokenizer::keeps_whole_words() const { return pattern_->known->keeps_whole_words; }
bool PreTokenizer::adds_begin_of_sequence() const { return pattern_->known->adds_begin; }

Result<void> PreTokenizer::split(std::string_view text, std::vector<std::string_view>& words) const {
  if (const Result<size_t> end = split_some(text, 0, text.size(), words); !end)
    return tl::unexpected<Error>(end.error());
  return {};
}

Result<size_t> PreTokenizer::split_some(std::string_view text, size_t from, size_t words_max,
                                        std::vector<std::string_view>& words) const {
  const MatchData match(pcre2_match_data_create(1, nullptr));  // per call: it is written, the pattern is not
  CHECK(match != nullptr);
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(match.get());
  size_t position = from;
  for (size_t count = 0; position < text.size() && count < words_max; ++count, position = ends[1]) {
    const int matched = pcre2_match(pattern_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                    position, PCRE2_NO_UTF_CHECK, match.get(), pattern_->limits.get());
    if (matched < 0)
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("text cannot be cut into words at byte {}: {}", position, pcre2_message(matched)));
    words.push_back(text.substr(position, ends[1] - position));
  }
  return position;
}

}  // namespace spillway

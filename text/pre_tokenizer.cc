#include "text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <string>
#include <utility>

#include "common/check.h"
#include "common/quote.h"

namespace spillway {
namespace {

// Limits of one match, that is of one word. The pattern needs a step or two a word; what the limits are for is a
// mistake in a pattern, which must end in an error and not in a hanging server.
constexpr uint32_t kMatchStepsMax = 1'000'000;
constexpr uint32_t kHeapKibMax = 64 * 1024;

// White_Space of Unicode, spelt out: PCRE2's \s also has U+180E, which other tokenizers count as a symbol.
#define SPILLWAY_SPACE R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"

// One pattern for both steps. GPT-2's is  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// and sees the text between two digits as a whole text: a digit is to it what the end is, hence \p{N} in the lookahead.
constexpr std::string_view kSmollm =
    R"(\p{N}|'(?:[stmd]|re|ve|ll)| ?\p{L}++| ?[^\p{L}\p{N})" SPILLWAY_SPACE R"(]++|[)" SPILLWAY_SPACE
    R"(]+(?![^\p{N})" SPILLWAY_SPACE R"(])|[)" SPILLWAY_SPACE R"(]++)";
#undef SPILLWAY_SPACE

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
  Code code;
  MatchContext limits;
};

PreTokenizer::PreTokenizer(std::unique_ptr<const Pattern> pattern) : pattern_(std::move(pattern)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::create(std::string_view name) {
  if (name != "smollm")
    return fail(ErrorCode::kUnsupported,
                fmt::format("tokenizer.ggml.pre is {}; supported is \"smollm\"", quote_foreign(name)));
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  auto pattern = std::make_unique<Pattern>();
  // Anchored here: as an option of the match it would turn machine code off (pcre2jit(3)).
  pattern->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kSmollm.data()), kSmollm.size(),
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

Result<void> PreTokenizer::split(std::string_view text, std::vector<std::string_view>& words) const {
  const MatchData match(pcre2_match_data_create(1, nullptr));  // per call: it is written, the pattern is not
  CHECK(match != nullptr);
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(match.get());
  for (size_t position = 0; position < text.size(); position = ends[1]) {
    const int matched = pcre2_match(pattern_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                    position, PCRE2_NO_UTF_CHECK, match.get(), pattern_->limits.get());
    if (matched < 0)
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("text cannot be cut into words at byte {}: {}", position, pcre2_message(matched)));
    words.push_back(text.substr(position, ends[1] - position));
  }
  return {};
}

}  // namespace spillway

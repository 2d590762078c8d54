#include "text/tokenizer.h"

#include <fmt/format.h>

#include "common/quote.h"
#include "text/bpe_tokenizer.h"
#include "text/spm_tokenizer.h"

namespace spillway {

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_gguf(const GgufFile& file) {
  const Result<std::string> model = file.get_string("tokenizer.ggml.model");
  if (!model) return tl::unexpected<Error>(model.error());
  if (*model == "gpt2") return BpeTokenizer::create(file);
  if (*model == "llama") return SpmTokenizer::create(file);
  return fail(ErrorCode::kUnsupported,
              fmt::format("tokenizer.ggml.model is {}; supported are \"gpt2\" and \"llama\"", quote_foreign(*model)));
}

Result<std::vector<TokenId>> Tokenizer::encode_prompt(std::span<const TextPart> parts, size_t tokens_max) const {
  Result<std::vector<TokenId>> tokens = encode_up_to(parts, tokens_max);
  if (!tokens || !adds_begin_of_sequence()) return tokens;
  const TokenId begin = *begin_of_sequence();
  if (tokens->empty() || tokens->front() != begin) tokens->insert(tokens->begin(), begin);
  return tokens;
}

}  // namespace spillway

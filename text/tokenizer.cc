#include "text/tokenizer.h"

#include <fmt/format.h>

#include "common/quote.h"
#include "text/bpe_tokenizer.h"

namespace spillway {

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_gguf(const GgufFile& file) {
  const Result<std::string> model = file.get_string("tokenizer.ggml.model");
  if (!model) return tl::unexpected<Error>(model.error());
  if (*model != "gpt2")
    return fail(ErrorCode::kUnsupported,
                fmt::format("tokenizer.ggml.model is {}; supported is \"gpt2\"", quote_foreign(*model)));
  return BpeTokenizer::create(file);
}

}  // namespace spillway

#include "cli/local_model.h"

#include <fmt/format.h>

#include "cli/memory_plan.h"
#include "common/log.h"
#include "kernels/make_backend.h"
#include "text/chat_template.h"

namespace spillway {

ModelFile::ModelFile(const std::string& path)
    : file_(value_or_throw(GgufFile::open(path))),
      config_(value_or_throw(read_model_config(file_))),
      tokenizer_(value_or_throw(Tokenizer::from_gguf(file_))) {
  if (tokenizer_->vocab_size() > config_.vocab)
    throw SetupError(fmt::format("{}: the tokeniser has {} tokens, the embedding {} rows", path,
                                 tokenizer_->vocab_size(), config_.vocab));
}

std::vector<TokenId> ModelFile::encode_prompt(const std::string& text, bool chat) const {
  std::string prompt = text;
  if (chat) {
    const ChatTemplate chat_template =
        value_or_throw(ChatTemplate::parse(value_or_throw(file_.get_string("tokenizer.chat_template"))));
    prompt = value_or_throw(
        chat_template.render({.messages = {{.role = "user", .content = text}},
                              .add_generation_prompt = true,
                              .bos_token = std::string(tokenizer_->token_bytes(tokenizer_->begin_of_sequence())),
                              .eos_token = std::string(tokenizer_->token_bytes(tokenizer_->end_of_sequence()))}));
  }
  std::vector<TokenId> tokens =
      value_or_throw(tokenizer_->encode(prompt, chat ? SpecialTokens::kParse : SpecialTokens::kAsText));
  if (tokens.empty()) throw SetupError("the prompt has no tokens: give --prompt some text");
  return tokens;
}

namespace {

PackedWeights packed_weights(const ModelFile& file, const LocalModel::Limits& limits) {
  if (limits.cache_dir.empty()) return {};  // and nothing to hash
  const ModelConfig& config = file.config();
  const ModelId model = compute_model_id(file.file(), config, config.kv_layout().block_tokens);
  return PackedWeights::find_or_make(limits.cache_dir, file.file(), config, model, {limits.isa, limits.threads});
}

}  // namespace

LocalModel::LocalModel(const ModelFile& file, const Limits& limits)
    : file_(file),
      limits_(limits),
      packed_(packed_weights(file, limits)),
      backend_(make_backend({.isa = limits.isa, .threads = limits.threads})),
      weights_(value_or_throw(load_weights(file.file(), file.config(), *backend_, packed_.bytes()))),
      memory_(*backend_, file.config().kv_layout(), limits.kv_bytes),
      decoder_(*backend_, file.config(), weights_, limits.rows_max, limits.logit_rows_max, limits.model_len) {
  spdlog::info(
      "memory: {}",
      plan_memory(file.config(), limits.rows_max, limits.logit_rows_max, limits.model_len, limits.kv_bytes).one_line());
}

}  // namespace spillway

#include "cli/local_model.h"

#include <fmt/format.h>

#include "cli/memory_plan.h"
#include "common/log.h"
#include "kernels/make_backend.h"
#include "model/measure_step_threads.h"
#include "text/chat_template.h"

namespace spillway {

CpuList cpus_of(const Options& options) {
  return options.cpus.empty() ? CpuList() : value_or_throw(parse_cpu_list(options.cpus));
}

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
    ChatTemplate::Inputs inputs{.messages = {{.role = "user", .content = text}}};
    if (const auto begin = tokenizer_->begin_of_sequence()) inputs.bos_token = tokenizer_->token_bytes(*begin);
    inputs.eos_token = tokenizer_->token_bytes(tokenizer_->end_of_sequence());
    inputs.now = ChatTemplate::local_time();
    prompt = value_or_throw(chat_template.render(inputs));
  }
  std::vector<TokenId> tokens =
      value_or_throw(tokenizer_->encode_prompt(prompt, chat ? SpecialTokens::kParse : SpecialTokens::kAsText));
  if (tokens.empty()) throw SetupError("the prompt has no tokens: give --prompt some text");
  return tokens;
}

LocalModel::LocalModel(const ModelFile& file, const Limits& limits)
    : file_(file),
      limits_(limits),
      backend_(make_backend({.isa = limits.isa,
                             .threads = limits.threads > 0 ? limits.threads : limits.threads_max,
                             .cpus = limits.cpus,
                             .precision = limits.precision})),
      packed_(find_or_pack_weights(file.file(), file.config(), *backend_, limits.cache)),
      weights_(value_or_throw(load_weights(file.file(), file.config(), *backend_, packed_.matrices()))),
      memory_(*backend_, file.config().kv_layout(limits.precision.kv), limits.kv_bytes),
      decoder_(*backend_, file.config(), weights_, limits.rows_max, limits.logit_rows_max, limits.model_len) {
  spdlog::info("memory: {}", plan_memory({file.config(), weights_.packed_bytes()}, limits.rows_max,
                                         limits.logit_rows_max, limits.model_len, limits.kv_bytes)
                                 .one_line());
  if (limits.threads == 0) decoder_.use_step_threads(measure_step_threads(*backend_, decoder_, kv()));
  spdlog::info("threads of a step: {}", decoder_.step_threads().text());
}

}  // namespace spillway

#include "cli/run_command.h"

#include <fmt/format.h>

#include <cstdio>

#include "cli/local_engine.h"
#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "cli/packed_model.h"
#include "cli/precision.h"
#include "text/detokenizer.h"

namespace spillway {
namespace {

void print_timing(const LocalEngine::Answer& answer, size_t prompt_tokens, Duration load) {
  const double prefill = seconds(answer.first_token - answer.started);
  const double decode = seconds(answer.last_token - answer.first_token);
  fmt::print(stderr, "load {:.2f} s | prompt {} tokens in {:.0f} ms ({:.0f} tok/s)", seconds(load), prompt_tokens,
             prefill * 1e3, static_cast<double>(prompt_tokens) / prefill);
  const size_t steps = answer.tokens.size() - 1;
  if (steps > 0)
    fmt::print(stderr, " | {} more in {:.0f} ms ({:.1f} tok/s, {:.2f} ms each)", steps, decode * 1e3,
               static_cast<double>(steps) / decode, decode * 1e3 / static_cast<double>(steps));
  fmt::print(stderr, "\n");
}

}  // namespace

int run_command(const Options& options) {
  const TimePoint start = steady_now();
  const ModelFile file(options.model);
  const std::vector<TokenId> prompt = file.encode_prompt(options.prompt, options.chat);
  LocalModel model(file, {.isa = options.isa,
                          .threads = options.threads,
                          .rows_max = options.chunk_tokens + 1,
                          .logit_rows_max = 1,
                          .model_len = effective_model_len(options, file.config()),
                          .kv_bytes = options.device_memory,
                          .cache = weights_cache_of(options),
                          .threads_max = options.threads_max,
                          .cpus = cpus_of(options),
                          .precision = precision_of(options)});
  LocalEngine engine(model, options.chunk_tokens, 1);
  const Duration load = steady_now() - start;

  Detokenizer detokenizer(file.tokenizer());
  const std::span<const TokenId> ends = file.tokenizer().end_of_generation();
  const LocalEngine::Request request{.prompt = prompt,
                                     .tokens_max = options.max_tokens,
                                     .stop_tokens = {ends.begin(), ends.end()},
                                     .sampling = {.temperature = options.temperature, .seed = options.seed}};
  const auto answers = engine.generate({&request, 1}, [&](size_t, const EngineToken& token) {
    fmt::print("{}", detokenizer.push(token.token));
    std::fflush(stdout);
  });
  if (!answers) {
    fmt::print(stderr, "spillway: {}\n", answers.error().detail);
    return 1;
  }
  fmt::print("{}\n", detokenizer.finish());
  print_timing(answers->front(), prompt.size(), load);
  return 0;
}

}  // namespace spillway

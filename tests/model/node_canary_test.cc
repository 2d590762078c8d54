#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "kernels/make_backend.h"
#include "model/canary.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

struct Settings {
  uint32_t rows_max = 64, threads = 1, positions_max = 64;
};

uint64_t canary_of(const TinyModelOptions& model, const std::string& isa, const Settings& settings = {}) {
  const TinyModel tiny = make_tiny_model(model);
  const GgufFile file = tiny.open();
  const auto backend = make_backend({.isa = isa, .threads = settings.threads});
  const ModelConfig config = read_model_config(file).value();
  const Weights weights = load_weights(file, config, *backend).value();
  Decoder decoder(*backend, config, weights, settings.rows_max, 1, settings.positions_max);
  const KvLayout layout = config.kv_layout();
  const SlotArena kv{
      .base = backend->allocate(2 * layout.block_bytes()).data(), .header_bytes = 0, .layout = layout, .slot_count = 2};
  return compute_canary(*backend, decoder, kv);
}

TEST(NodeCanary, IsOfTheModelAndItsArithmeticAlone) {
  for (const std::string& isa : available_isa_levels()) {
    const uint64_t canary = canary_of({.seed = 7}, isa);
    EXPECT_EQ(canary_of({.seed = 7}, isa, {.rows_max = 3}), canary);
    EXPECT_EQ(canary_of({.seed = 7}, isa, {.threads = 2}), canary);
    EXPECT_EQ(canary_of({.seed = 7}, isa, {.positions_max = 16}), canary);
    EXPECT_NE(canary_of({.seed = 8}, isa), canary);
    EXPECT_NE(canary_of({.seed = 7, .context = 300}, isa), canary) << "the RoPE table is no part of it";
  }
  // Arithmetic that rounds at another place shows. That of avx2 fuses what scalar rounds twice, which moves no logit of
  // so small a model; the class tells these two apart.
  for (const std::string& isa : available_isa_levels())
    EXPECT_EQ(canary_of({.seed = 7}, isa) == canary_of({.seed = 7}, "scalar"), isa != "avx512bf16") << isa;
}

}  // namespace
}  // namespace spillway

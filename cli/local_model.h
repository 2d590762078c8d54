#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/value_or_throw.h"
#include "common/cpu_list.h"
#include "engine/kv_memory.h"
#include "formats/gguf.h"
#include "kernels/backend.h"
#include "kernels/numerics.h"
#include "kv/block.h"
#include "model/decoder.h"
#include "model/model_config.h"
#include "model/packed_weights.h"
#include "model/weights.h"
#include "model/weights_cache.h"
#include "text/tokenizer.h"

namespace spillway {

CpuList cpus_of(const Options& options);  // --cpus; empty: none were given

// A model file opened, checked and understood. Immutable: any thread may read.
class ModelFile {
 public:
  explicit ModelFile(const std::string& path);  // throws SetupError: not readable, corrupt, not supported
  const GgufFile& file() const { return file_; }
  const ModelConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // `text` as a user's message in the file's own chat template, ready to be answered; or plain text. BOS in front once
  // where the model wants it. Throws SetupError when the template or the text cannot be used, or gives no token.
  std::vector<TokenId> encode_prompt(const std::string& text, bool chat) const;

 private:
  GgufFile file_;
  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

// What one process needs to compute: backend, packed weights, KV memory and decoder. Built on one thread, then used by
// one thread at a time: an Executor as long as there is one, else whoever calls.
class LocalModel {
 public:
  struct Limits {
    std::string isa = "auto";
    uint32_t threads = 0;         // 0: measured for each kind of step, up to one per core
    uint32_t rows_max = 0;        // tokens of one step
    uint32_t logit_rows_max = 0;  // of those, how many may reach the classifier; also sequences of one step
    uint32_t model_len = 0;       // positions
    uint64_t kv_bytes = 0;
    WeightsCacheConfig cache{};
    uint32_t threads_max = 0;  // where threads is 0; 0: one per core
    CpuList cpus{};            // BackendConfig's
    Precision precision{};
  };
  // Throws SetupError when memory does not suffice or the ISA level is not there. `file` must outlive this.
  LocalModel(const ModelFile& file, const Limits& limits);
  LocalModel(const LocalModel&) = delete;
  LocalModel& operator=(const LocalModel&) = delete;

  const ModelFile& file() const { return file_; }
  const ModelConfig& config() const { return file_.config(); }
  const Limits& limits() const { return limits_; }
  const Weights& weights() const { return weights_; }
  const SlotArena& kv() const { return memory_.arena(); }
  Backend& backend() { return *backend_; }
  Decoder& decoder() { return decoder_; }

 private:
  const ModelFile& file_;
  const Limits limits_;
  const std::unique_ptr<Backend> backend_;
  const PackedWeights packed_;
  const Weights weights_;
  const KvMemory memory_;
  Decoder decoder_;
};

}  // namespace spillway

#include "cli/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "cli/memory_plan.h"
#include "cli/precision.h"
#include "cli/serve_check.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "common/cores.h"
#include "common/log.h"
#include "common/memory.h"
#include "formats/gguf.h"

namespace spillway {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint32_t kLengthMin = 512;     // shorter contexts serve nobody
constexpr uint32_t kUsualLength = 2048;  // tokens of a request, where sequences are counted
constexpr std::array kSequences{64u, 32u, 16u, 8u, 4u, 2u, 1u};
constexpr std::array kFlags{"device-memory", "max-model-len", "max-sequences"};

class Fitting {
 public:
  Fitting(const Machine& machine, const PlannedModel& model, const Options& options, const std::set<std::string>& given)
      : machine_(machine),
        model_(model),
        given_(given),
        layout_(model.config.kv_layout(precision_of(options).kv)),
        budget_(machine.available_bytes - machine.available_bytes / 10),
        options_(options) {}

  Fit run() {
    choose_memory();
    explain();
    return std::move(fit_);
  }

 private:
  bool given(const char* flag) const { return given_.contains(flag); }
  uint32_t nodes() const { return options_.prefill + options_.decode; }
  uint64_t request_bytes(uint32_t tokens) const { return uint64_t{layout_.blocks_for(tokens)} * layout_.block_bytes(); }

  // What the nodes hold without KV.
  uint64_t fixed_bytes(Options options) const {
    options.device_memory = 0;
    return needed_bytes(options, model_);
  }

  // KV memory of each node for `length` and `sequences`; nothing where they do not fit.
  std::optional<uint64_t> kv_memory(uint32_t length, uint32_t sequences) const {
    Options options = options_;
    options.max_model_len = length;
    options.max_sequences = sequences;
    const uint64_t usual = sequences * request_bytes(std::min(length, kUsualLength));
    const uint64_t least = given("max-sequences") ? request_bytes(length) : std::max(request_bytes(length), usual);
    const uint64_t fixed = fixed_bytes(options);
    const uint64_t left = fixed < budget_ ? (budget_ - fixed) / nodes() / kMiB * kMiB : 0;
    const uint64_t most = (sequences * request_bytes(length) + kMiB - 1) / kMiB * kMiB;  // more would stay empty
    const uint64_t memory = given("device-memory") ? options_.device_memory : std::min(left, most);
    if (memory > left || memory < least) return std::nullopt;
    return memory;
  }

  bool try_length(uint32_t length) {
    for (const uint32_t sequences : kSequences) {
      const uint32_t count = given("max-sequences") ? options_.max_sequences : sequences;
      const std::optional<uint64_t> memory = kv_memory(length, count);
      if (!memory) continue;
      options_.max_model_len = length;
      options_.max_sequences = count;
      options_.device_memory = *memory;
      return true;
    }
    return false;
  }

  void choose_memory() {
    const bool length_given = given("max-model-len");
    uint32_t length = length_given ? effective_model_len(options_, model_.config) : model_.config.context_max;
    while (!try_length(length)) {
      if (length_given || length / 2 < kLengthMin) throw too_small(length);
      length /= 2;
    }
  }

  SetupError too_small(uint32_t length) const {
    Options least = options_;
    least.max_model_len = length;
    if (!given("max-sequences")) least.max_sequences = 1;
    if (!given("device-memory")) least.device_memory = (request_bytes(length) + kMiB - 1) / kMiB * kMiB;
    const uint64_t needed = needed_bytes(least, model_);
    if (needed <= budget_)  // then --device-memory was given
      return SetupError(
          fmt::format("--fit: one request of {} tokens needs {} of KV, --device-memory is {}: raise it to "
                      "{}MiB, or lower --max-model-len",
                      length, human_bytes(request_bytes(length)), human_bytes(least.device_memory),
                      (request_bytes(length) + kMiB - 1) / kMiB));
    return SetupError(
        fmt::format("--fit: {} nodes need {} for one request of {} tokens each ({} of it weights, which they share), "
                    "{} is left of {} available: "
                    "free {}, take a smaller model or fewer nodes",
                    nodes(), human_bytes(needed), length, human_bytes(model_.weight_bytes), human_bytes(budget_),
                    human_bytes(machine_.available_bytes), human_bytes((needed - budget_) * 10 / 9 + kMiB)));
  }

  // Which number is best only a node with its weights can tell.
  std::string threads(Role role) const {
    if (const uint32_t fixed = threads_fixed(options_, role); fixed > 0) return fmt::format("{} (as given)", fixed);
    return fmt::format("each measures at its start which of 1 to {} is fastest",
                       std::max(1u, machine_.cores / std::max(options_.prefill, options_.decode)));
  }

  void choose(const char* flag, const std::string& value, const std::string& why) {
    const std::string line = fmt::format("--{} {}: {}", flag, value, why);
    fit_.reasons.push_back(given(flag) ? line + " (as given)" : line);
    if (!given(flag)) fit_.chosen.emplace_back(flag, value);
  }

  void explain() {
    const uint64_t fixed = fixed_bytes(options_);
    fit_.reasons.push_back(fmt::format("machine: {} cores, {} available, of which a tenth stays free", machine_.cores,
                                       human_bytes(machine_.available_bytes)));
    fit_.reasons.push_back(fmt::format(
        "{} prefill and {} decode nodes: {} of weights, shared, {} of activations and rings", options_.prefill,
        options_.decode, human_bytes(model_.weight_bytes), human_bytes(fixed - model_.weight_bytes)));
    fit_.reasons.push_back(fmt::format("left for KV: {}", human_bytes(budget_ > fixed ? budget_ - fixed : 0)));
    const std::string of_prefill =
        options_.prefill == 0 ? "" : fmt::format("of prefill nodes: {}, ", threads(Role::kPrefill));
    fit_.reasons.push_back(fmt::format("threads {}of decode nodes: {}", of_prefill, threads(Role::kDecode)));
    choose("max-model-len", std::to_string(options_.max_model_len),
           fmt::format("{} {}; one request takes {} of KV",
                       model_.config.sliding_window == 0 ? "trained for" : "attention window",
                       model_.config.context_max, human_bytes(request_bytes(options_.max_model_len))));
    const uint64_t tokens = options_.device_memory / layout_.block_bytes() * layout_.block_tokens;
    choose("device-memory", fmt::format("{}MiB", options_.device_memory / kMiB),
           fmt::format("{} tokens of KV in each node", tokens));
    const uint32_t usual = std::min(options_.max_model_len, kUsualLength);
    choose("max-sequences", std::to_string(options_.max_sequences),
           fmt::format("{} of {} tokens or {} of {} fit", tokens / usual, usual, tokens / options_.max_model_len,
                       options_.max_model_len));
  }

  const Machine machine_;
  const PlannedModel& model_;
  const std::set<std::string>& given_;
  const KvLayout layout_;
  const uint64_t budget_;
  Options options_;
  Fit fit_;
};

}  // namespace

Fit fit(const Machine& machine, const PlannedModel& model, const Options& options, const std::set<std::string>& given) {
  return Fitting(machine, model, options, given).run();
}

void apply_fit(Configuration& configuration, const Options& options) {
  const GgufFile file = value_or_throw(GgufFile::open(options.model));
  const PlannedModel model = planned_model(file, value_or_throw(read_model_config(file)));
  std::set<std::string> given;
  for (const char* const flag : kFlags)
    if (configuration.given(flag)) given.insert(flag);
  const Fit chosen = fit({available_cores(), available_memory_bytes()}, model, options, given);
  for (const std::string& reason : chosen.reasons) say("fit: " + reason);
  for (const auto& [flag, value] : chosen.chosen) configuration.choose(flag, value, "--fit");
}

}  // namespace spillway

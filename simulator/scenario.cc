#include "simulator/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <set>
#include <utility>
#include <vector>

#include "gateway/public_prefixes.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;

constexpr Duration kRestWithin = 600s;  // virtual; every wait and lease is shorter
constexpr uint32_t kPublicTokens = 40;  // of the first beginning: two blocks, and half of one
constexpr std::array<std::byte, 1> kSecret{std::byte{1}};
constexpr uint64_t kCalmFirst = 1000;      // request ids of the calm afterwards
constexpr uint32_t kFaultyMessages = 250;  // message faults fall among the first of so many

// A part is one page without padding; of the last one two pages, the second not full.
constexpr KvLayout kBf16Layout{.layer_count = 3, .kv_heads = 1, .head_dim = 64, .block_tokens = 16};
constexpr KvLayout kInt8Layout{
    .layer_count = 3, .kv_heads = 2, .head_dim = 60, .block_tokens = 16, .dtype = KvDtype::kInt8};
constexpr KvLayout kInt8LayoutOfTwoPages{
    .layer_count = 3, .kv_heads = 2, .head_dim = 120, .block_tokens = 16, .dtype = KvDtype::kInt8};

std::vector<TokenId> draw_tokens(Random& random, uint32_t count) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.below(SyntheticModel::kVocab));
  return tokens;
}

// Often one of a few beginnings, cut anywhere, so that prefixes hit in whole blocks and miss inside one.
std::vector<TokenId> draw_prompt(Random& random, const std::vector<std::vector<TokenId>>& beginnings) {
  std::vector<TokenId> prompt;
  if (!random.one_in(3)) {
    prompt = beginnings[random.below(beginnings.size())];
    prompt.resize(random.between(1, static_cast<uint32_t>(prompt.size())));
  }
  const std::vector<TokenId> rest = draw_tokens(random, random.between(prompt.empty() ? 1 : 0, 48));
  prompt.insert(prompt.end(), rest.begin(), rest.end());
  return prompt;
}

GenerateRequest draw_request(Random& random, const SyntheticModel& model,
                             const std::vector<std::vector<TokenId>>& beginnings, bool long_answers) {
  GenerateRequest request;
  request.prompt = draw_prompt(random, beginnings);
  request.output_tokens_max = long_answers || random.one_in(8) ? random.between(13, 40) : random.between(1, 12);
  request.sampling.temperature = random.one_in(2) ? 0.0f : 0.7f;
  request.sampling.seed = random.below(3);
  if (random.one_in(4)) request.sampling.top_k = 40;
  if (random.one_in(4)) request.sampling.frequency_penalty = 0.5f;  // looks back
  request.digest_logits = random.one_in(2);
  request.tenant.bytes[0] = std::byte(random.below(2));
  if (random.one_in(3)) {  // ends at a token that it will surely make
    const ReferenceAnswer answer = reference_answer(model, request);
    request.stop_tokens = {answer.tokens[random.below(answer.tokens.size())]};
    if (random.one_in(3)) request.sampling.min_tokens = random.between(1, request.output_tokens_max);
  }
  return request;
}

class Drawing {
 public:
  explicit Drawing(uint64_t seed) : random_(mix64(seed) ^ 0x5ce9a210) { config_.seed = seed; }

  WorldConfig draw() {
    SimulatedNodeConfig& node = config_.node;
    node.slots = random_.between(12, 32);
    node.limits = {.tokens_max = 64, .chunk_tokens = random_.between(8, 48), .sequences_max = 6};
    node.requests_max = random_.between(4, 8);
    if (random_.one_in(4)) {  // many attempts, so that old ones are about
      node.transfers_max = random_.between(2, 3);
      config_.gateway.attempts_max = 10'000;
    }
    node.max_model_len = 160;
    node.growth_margin = std::vector<uint32_t>{0, 8, 160}[random_.below(3)];
    if (random_.one_in(4)) {  // answers outgrow the pool, and preempt each other
      long_answers_ = true;
      node.slots = 12;
      node.growth_margin = random_.between(0, 8);
    }
    node.send_window = random_.between(1, 8);
    node.layers_per_frame = random_.between(1, 3);
    config_.bulk_delay_max = std::vector<Duration>{100us, 1ms, 10ms}[random_.below(3)];
    config_.gateways = std::vector<uint32_t>{1, 1, 2, 3}[random_.below(4)];
    draw_encodings();
    draw_clients();
    draw_message_faults();
    for (uint32_t fault = random_.between(1, 4); fault > 0; --fault) draw_happening();
    for (uint32_t stall = random_.between(0, 4); stall > 0; --stall) draw_stall();
    draw_colocation();
    return std::move(config_);
  }

 private:
  Duration some_time() { return random_.between(Duration(5ms), clients_until_); }
  ProcessId some_gateway() { return ProcessId{random_.between(0, config_.gateways - 1)}; }
  ProcessId some_prefill() { return some_of(config_.gateways, config_.prefill); }
  ProcessId some_decode() { return some_of(config_.gateways + config_.prefill, config_.decode); }
  ProcessId some_node() { return some_of(config_.gateways, config_.prefill + config_.decode); }
  ProcessId some_of(uint32_t first, uint32_t count) { return ProcessId{random_.between(first, first + count - 1)}; }
  void at(Duration time, Happening what) { config_.happenings.emplace(time, std::move(what)); }

  // Of one pool K and V are all of one type; in every fourth nodes compute in two classes. By a generator of their own,
  // so that all else of a seed is the same with any of them.
  void draw_encodings() {
    Random random(mix64(config_.seed) ^ 0x1a7007);
    config_.node.model.layout =
        random.one_in(3) ? (random.one_in(2) ? kInt8Layout : kInt8LayoutOfTwoPages) : kBf16Layout;
    if (!random.one_in(4)) return;
    for (uint32_t node = 0; node < config_.prefill + config_.decode; ++node)
      config_.numerics[ProcessId{config_.gateways + node}] = NumericsClass{static_cast<uint16_t>(random.between(1, 2))};
  }
  void draw_clients() {
    std::vector<std::vector<TokenId>> beginnings;
    for (int count = 0; count < 3; ++count) beginnings.push_back(draw_tokens(random_, 70));
    const PublicPrefixes shared({{beginnings[0].begin(), beginnings[0].begin() + kPublicTokens}, beginnings[1]},
                                kSecret);
    clients_ = random_.between(kScenarioRequestsMin, 30);
    const Duration gap_max = std::vector<Duration>{2ms, 10ms, 30ms}[random_.below(3)];
    Duration time = 5ms;
    ClientArrives previous{{}, true};
    for (uint32_t client = 1; client <= clients_; ++client) {
      ClientArrives arrival{draw_request(random_, config_.node.model, beginnings, long_answers_), false};
      arrival.gateway = random_.between(0, config_.gateways - 1);
      if (random_.one_in(40)) {
        arrival.too_long = true;
        arrival.work.prompt = draw_tokens(random_, config_.node.max_model_len);
      }
      arrival.work.public_prefix = shared.of(arrival.work.prompt);
      if (client % 3 == 0 && !arrival.too_long && !previous.too_long) {  // one more choice of the same prompt
        arrival.work = previous.work;
        arrival.work.leader = previous.work.request;
        arrival.gateway = previous.gateway;
        arrival.work.sampling.choice = 1;
      }
      arrival.work.request = {BootId{~config_.seed}, client};
      previous = arrival;
      at(time, arrival);
      arrivals_.push_back(time);
      if (random_.one_in(8))
        at(time + random_.between(Duration(1ms), Duration(80ms)), ClientLeaves{arrival.work.request});
      time += random_.between(Duration(0), gap_max);
    }
    clients_until_ = time;
  }
  void draw_message_faults() {
    const uint32_t count = random_.between(0, 12);
    const bool harmless = random_.one_in(2);  // none is lost: then no request may fail for it
    for (uint32_t fault = 0; fault < count; ++fault) {
      static constexpr MessageFault kHarmless[] = {MessageFault::kDuplicate, MessageFault::kLateCopy,
                                                   MessageFault::kReorder};
      static constexpr MessageFault kHarmful[] = {MessageFault::kLose, MessageFault::kLate};
      config_.message_faults[random_.below(kFaultyMessages)] =
          harmless || random_.one_in(2) ? kHarmless[random_.below(3)] : kHarmful[random_.below(2)];
    }
  }
  // Frames are held up, and meanwhile the clients whose blocks they may carry leave: those blocks' slots find new
  // users.
  void draw_stall() {
    const Duration time = some_time(), length = random_.between(Duration(10ms), Duration(100ms));
    at(time, BulkStalls{some_decode(), length});
    for (uint32_t client = 1; client <= clients_; ++client) {
      const Duration since = time - arrivals_[client - 1];
      if (since > Duration(10ms) || since < -length || !random_.one_in(4)) continue;
      at(time + random_.between(Duration(0), length), ClientLeaves{{BootId{~config_.seed}, client}});
    }
  }
  // Decode nodes serve alone until prefill nodes come, and again when those have left.
  void draw_colocation() {
    if (!random_.one_in(3)) return;
    config_.node.colocates = true;
    if (random_.one_in(4)) return;  // prefill nodes are there from the start, and may die as any
    for (uint32_t index = 0; index < config_.prefill; ++index) {
      const ProcessId prefill{config_.gateways + index};
      config_.absent.insert(prefill);
      if (random_.one_in(3)) continue;
      const Duration comes = some_time();
      at(comes, ProcessStarts{prefill});
      if (random_.one_in(2)) at(comes + random_.between(Duration(20ms), Duration(200ms)), NodeDrains{prefill, 60s});
    }
  }
  void draw_happening() {
    const Duration time = some_time();
    switch (random_.below(10)) {
      case 0:
      case 1: {
        const ProcessId process = random_.one_in(config_.gateways > 1 ? 3 : 8) ? some_gateway() : some_node();
        at(time, ProcessDies{process});
        at(time + random_.between(Duration(1ms), Duration(2s)), ProcessStarts{process});
        return;
      }
      case 2: {
        const bool with_gateway = random_.one_in(2);
        const ProcessId node = with_gateway ? some_node() : some_prefill();
        return at(time, ConnectionBreaks{node, with_gateway ? some_gateway() : some_decode()});
      }
      case 3: return at(time, BulkBreaks{some_node()});
      case 4: return at(time, TransferHangs{some_node(), random_.between(Duration(100ms), Duration(9s))});
      case 5: return at(time, ClientLeaves{{BootId{~config_.seed}, random_.between(1, clients_)}});
      case 6: return at(time, StepStalls{some_node(), random_.between(Duration(5500ms), Duration(9s))});
      case 7:  // and comes back soon, or when the queue had to do without it
        return at(time, NodeDrains{some_node(),
                                   random_.between(Duration(1ms), random_.one_in(3) ? Duration(60s) : Duration(2s))});
      default: return at(time, BulkCorrupts{some_prefill()});
    }
  }

  Random random_;
  WorldConfig config_;
  bool long_answers_ = false;
  uint32_t clients_ = 0;
  std::vector<Duration> arrivals_;
  Duration clients_until_{};
};

// After all faults: unlike prompts at once, one per pair of nodes and two per gateway at least. Each must end well, and
// each node take part.
void calm_after(World& world, const WorldConfig& config) {
  world.pass(10s);  // the gateway may just have learnt of a refusal, seconds late, and let that node rest
  Random random(config.seed);
  const uint32_t requests = std::max(config.prefill * config.decode, 2 * config.gateways);
  std::set<ProcessId> nodes;
  for (uint32_t index = 0; index < requests; ++index) {
    GenerateRequest work;
    work.request = {BootId{~config.seed}, kCalmFirst + index};
    work.prompt = draw_tokens(random, 40 + index);
    work.output_tokens_max = 5;
    world.happen(ClientArrives{work, false, index % config.gateways});
  }
  if (world.run(kRestWithin)) world.check_at_rest();
  for (uint32_t index = 0; index < requests && !world.oracle().first_breach(); ++index) {
    const RequestId request{BootId{~config.seed}, kCalmFirst + index};
    nodes.merge(std::set(world.oracle().nodes_of(request)));
    if (world.oracle().outcome(request) == Oracle::Outcome::kEnded) continue;
    world.breach(fmt::format("request {} of the calm after all faults did not end well", request.counter));
  }
  if (nodes.size() < config.prefill + config.decode) world.breach("a node took no part in the calm after all faults");
}

}  // namespace

WorldConfig draw_scenario(uint64_t seed) { return Drawing(seed).draw(); }

ScenarioResult run_scenario(uint64_t seed, Interceptor& interceptor) {
  const WorldConfig config = draw_scenario(seed);
  World world(config, interceptor);
  if (world.run(kRestWithin) && world.settle(kRestWithin)) world.check_at_rest();
  if (!world.oracle().first_breach()) calm_after(world, config);
  ScenarioResult result;
  result.breach = world.oracle().first_breach();
  result.log_tail = world.log_tail();
  result.totals = world.oracle().totals();
  result.faults = world.faults_met();
  result.coverage = world.coverage();
  return result;
}

}  // namespace spillway

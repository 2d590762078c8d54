#include "tests/simulation/mutations.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <utility>

#include "simulator/attempt_of.h"
#include "simulator/world.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;

bool is_placement(const Message& message) {
  return std::holds_alternative<Prefill>(message) || std::holds_alternative<Reserve>(message);
}

// What concerns an older attempt of a request is taken for its present one.
class NoEpochCheck final : public Interceptor {
  void deliver(ProcessId to, ProcessId from, Message message, std::vector<Message>& out) override {
    if (Attempt* const attempt = attempt_of(message)) {
      for (const ProcessId process : {to, from}) {
        Attempt& present = present_[{process, attempt->request}];
        if (is_placement(message)) {
          if (present.epoch < attempt->epoch) present = *attempt;
        } else if (process == to && present.epoch > attempt->epoch) {
          *attempt = present;
        }
      }
    }
    out.push_back(std::move(message));
  }
  std::map<std::pair<ProcessId, RequestId>, Attempt> present_;
};

// TransferClosed comes at once, while frames still land.
class EarlySlotFree final : public Interceptor {
  void job(ProcessId, TransferJob job, std::vector<Job>& out, std::vector<TransferEvent>& answers) override {
    const auto* const close = std::get_if<CloseTransfer>(&job);
    if (close != nullptr) answers.push_back(TransferClosed{close->transfer, close->epoch});
    out.push_back({close != nullptr ? Duration(100ms) : Duration(0), std::move(job)});
  }
};

class PartSentTwice final : public Interceptor {
  void job(ProcessId, TransferJob job, std::vector<Job>& out, std::vector<TransferEvent>&) override {
    out.push_back({Duration{0}, job});
    auto* const send = std::get_if<SendParts>(&job);
    if (send == nullptr || ++sends_ % 50 != 0) return;
    send->send = SendId{(uint64_t{1} << 63) + sends_};
    out.push_back({Duration(5ms), std::move(job)});
  }
  uint64_t sends_ = 0;
};

template <class Kind>
class LostMessage final : public Interceptor {
  void deliver(ProcessId, ProcessId, Message message, std::vector<Message>& out) override {
    if (!std::holds_alternative<Kind>(message)) out.push_back(std::move(message));
  }
};

// The first part that lands counts for all.
class CommitBeforeAllLanded final : public Interceptor {
  void job(ProcessId, TransferJob job, std::vector<Job>& out, std::vector<TransferEvent>&) override {
    if (const auto* const open = std::get_if<OpenTransfer>(&job)) opened_[open->transfer] = *open;
    out.push_back({Duration{0}, std::move(job)});
  }
  void answer(ProcessId, TransferEvent event, TimePoint, std::vector<TransferEvent>& out) override {
    const auto* const landed = std::get_if<PartsLanded>(&event);
    out.push_back(event);
    if (landed == nullptr || !landed->intact) return;
    const OpenTransfer& open = opened_.at(landed->transfer);
    for (uint32_t block = 0; block < open.slots.size(); ++block) {
      out.push_back(PartsLanded{open.transfer, open.epoch, open.first_block + block, {0, 3}, true});
    }
  }
  std::map<TransferId, OpenTransfer> opened_;
};

class DigestMismatchIgnored final : public Interceptor {
  void answer(ProcessId, TransferEvent event, TimePoint, std::vector<TransferEvent>& out) override {
    if (auto* const landed = std::get_if<PartsLanded>(&event)) landed->intact = true;
    out.push_back(std::move(event));
  }
};

// The Grant leaves at once, the transfer thread hears of the transfer later.
class GrantBeforeOpen final : public Interceptor {
  void job(ProcessId, TransferJob job, std::vector<Job>& out, std::vector<TransferEvent>&) override {
    const bool later = std::holds_alternative<OpenTransfer>(job) || std::holds_alternative<CloseTransfer>(job);
    out.push_back({later ? Duration(2ms) : Duration(0), std::move(job)});
  }
};

// D counts one token twice.
class TokenCountedTwice final : public Interceptor {
  void deliver(ProcessId, ProcessId, Message message, std::vector<Message>& out) override {
    out.push_back(message);
    auto* const token = std::get_if<Token>(&message);
    if (token == nullptr || token->index < 2 || token->finish != FinishReason::kNone) return;
    ++token->index;
    out.push_back(std::move(message));
  }
};

class LeaseNeverExpires final : public Interceptor {
  bool expires(ProcessId process) override { return process == World::gateway(0); }
};

// Takes the first block of a prompt for a prefix hit whenever its slot holds anything from before.
class StaleBlockServed final : public Interceptor {
  void plan(ProcessId process, StepPlan& plan) override {
    for (StepShare& share : plan.shares) {
      const bool was_used = !used_.emplace(process, plan.blocks[share.block_first]).second;
      if (!was_used || share.position_first != 0 || share.token_count <= kBlock) continue;
      share.token_first += kBlock;
      share.token_count -= kBlock;
      share.position_first = kBlock;
    }
  }
  static constexpr uint32_t kBlock = 16;
  std::set<std::pair<ProcessId, SlotId>> used_;
};

// The first two blocks of a transfer land in each other's slots.
class WrongSlot final : public Interceptor {
  void job(ProcessId, TransferJob job, std::vector<Job>& out, std::vector<TransferEvent>&) override {
    auto* const open = std::get_if<OpenTransfer>(&job);
    if (open != nullptr && open->slots.size() > 1) std::swap(open->slots[0], open->slots[1]);
    out.push_back({Duration{0}, std::move(job)});
  }
};

// A gateway reads in a Load what the node did not say.
template <void (*kChange)(Load&)>
class LoadMisread final : public Interceptor {
  void deliver(ProcessId, ProcessId, Message message, std::vector<Message>& out) override {
    if (auto* const load = std::get_if<Load>(&message)) kChange(*load);
    out.push_back(std::move(message));
  }
};
void undivided(Load& load) { load.blocks_share = load.blocks_free; }
void counts_all(Load& load) { load.newest_transfer = UINT64_MAX; }
void stays(Load& load) { load.draining = false; }
void moves(Load& load) { load.stalled_ms = load.transfer_stalled_ms = 0; }

Work* work_of(Message& message) {
  if (auto* const prefill = std::get_if<Prefill>(&message)) return &prefill->work;
  auto* const reserve = std::get_if<Reserve>(&message);
  return reserve != nullptr ? &reserve->work : nullptr;
}

class TenantsKeyedAlike final : public Interceptor {
  void deliver(ProcessId, ProcessId, Message message, std::vector<Message>& out) override {
    if (Work* const work = work_of(message)) work->tenant = {};
    out.push_back(std::move(message));
  }
};

// A block that begins in the public prefix counts as public.
class PartlyPublicBlockShared final : public Interceptor {
  void deliver(ProcessId, ProcessId, Message message, std::vector<Message>& out) override {
    if (Work* const work = work_of(message)) {
      const auto prompt_tokens = static_cast<uint32_t>(work->prompt.size());
      uint32_t& tokens = work->public_prefix.tokens;
      tokens = std::min(prompt_tokens, (tokens + 15) / 16 * 16);
    }
    out.push_back(std::move(message));
  }
};

template <class Made>
std::unique_ptr<Interceptor> make() {
  return std::make_unique<Made>();
}

constexpr Mutation kMutations[] = {
    {"no epoch check", make<NoEpochCheck>},
    {"slot free before landing ended", make<EarlySlotFree>},
    {"part sent twice", make<PartSentTwice>},
    {"lost Failed", make<LostMessage<Failed>>},
    {"commit before all parts landed", make<CommitBeforeAllLanded>},
    {"digest mismatch ignored", make<DigestMismatchIgnored>},
    {"grant sent before open", make<GrantBeforeOpen>},
    {"token counted twice", make<TokenCountedTwice>},
    {"cancel ignored", make<LostMessage<Cancel>>},
    {"lease never expires", make<LeaseNeverExpires>},
    {"stale block served", make<StaleBlockServed>},
    {"wrong slot", make<WrongSlot>},
    {"shares not divided", make<LoadMisread<undivided>>},
    {"promises forgotten", make<LoadMisread<counts_all>>},
    {"a want never served", make<LostMessage<Want>>},
    {"placed on a node that drains", make<LoadMisread<stays>>},
    {"placed on a node that stalls", make<LoadMisread<moves>>},
    {"tenants keyed alike", make<TenantsKeyedAlike>},
    {"partly public block shared", make<PartlyPublicBlockShared>},
};

}  // namespace

std::span<const Mutation> mutations() { return kMutations; }

}  // namespace spillway

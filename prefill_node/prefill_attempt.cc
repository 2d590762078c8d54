// The life of one attempt at a prefill node, message by message.
#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "prefill_node/prefill_node.h"
#include "transfer/prompt_scores.h"

namespace spillway {

void PrefillNode::on_message(PeerId from, const PeerInfo& info, Turn& turn) {
  if (!peers_.is(from, Role::kGateway) || peers_.find(info.boot)) return;
  emit(ConnectPeer{info.control_endpoint}, turn);
}

void PrefillNode::on_message(PeerId from, const Prefill& prefill, Turn& turn) {
  if (!admits(from, prefill)) return;
  const Attempt& attempt = prefill.work.attempt;
  const Result<SequenceId> sequence =
      requests_.find(attempt.transfer) != nullptr || sender_.knows(attempt.transfer)
          ? fail(ErrorCode::kInvalidArgument, "the transfer id is in use by another request")
          : open(prefill.work);
  peers_.placed(from, attempt.transfer, sequence.has_value());
  if (sequence) {
    start(from, prefill, *sequence, turn);
    return;
  }
  ended_.add(attempt.request, attempt.epoch);
  std::erase_if(early_grants_, [&](const EarlyGrant& one) { return one.attempt == attempt; });
  const Failed refusal{attempt, sequence.error().code, sequence.error().detail};
  send(from, refusal, turn);
  if (const std::optional<PeerId> decode = peers_.find(prefill.decode)) send(*decode, refusal, turn);
}

// A new attempt, not a late, doubled or fenced one; ends an older attempt of the same request.
bool PrefillNode::admits(PeerId from, const Prefill& prefill) {
  const Attempt& attempt = prefill.work.attempt;
  if (!peers_.is(from, Role::kGateway) || ended_.contains(attempt.request, attempt.epoch)) return false;
  PrefillRequest* const older = requests_.find(attempt.request);
  if (older == nullptr) return true;
  if (older->attempt.epoch >= attempt.epoch || older->gateway != from) return false;
  release(*older);
  return true;
}

Result<SequenceId> PrefillNode::open(const Work& work) {
  if (auto checked = check_work(work, config_.vocab, engine_.config().max_model_len); !checked) {
    return tl::unexpected(checked.error());
  }
  if (requests_.full() || !sender_.has_room()) {
    return fail(ErrorCode::kNoSpace, fmt::format("the prefill node holds {} requests, its limit", requests_.size()));
  }
  const uint32_t prompt_tokens = checked_cast<uint32_t>(work.prompt.size());
  return engine_.open({.prompt = work.prompt,
                       .reserve_tokens = prompt_tokens,
                       .reuse_tokens_max = work.score_prompt ? 0 : prompt_tokens - 1,  // a cached token has no logits
                       .sampling = work.sampling,
                       .stop_tokens = work.stop_tokens,
                       .tenant = work.tenant,
                       .public_prefix = work.public_prefix,
                       .digest_logits = work.digest_logits,
                       .logprob_count = work.logprob_count,
                       .score_prompt = work.score_prompt});
}

void PrefillNode::start(PeerId from, const Prefill& prefill, SequenceId sequence, Turn& turn) {
  const Work& work = prefill.work;
  const KvLayout& layout = engine_.cache().config().layout;
  const Sequence& opened = engine_.sequence(sequence);
  PrefillRequest record;
  record.attempt = work.attempt;
  record.gateway = from;
  record.decode = prefill.decode;
  record.work = work;
  record.sequence = sequence;
  record.cached_tokens = opened.cached_tokens;
  record.arrived = turn.now;
  PrefillRequest& request = requests_.insert(std::move(record));
  const uint32_t block_count = layout.blocks_for(checked_cast<uint32_t>(work.prompt.size()));
  sender_.begin(work.attempt.transfer, work.attempt.epoch, block_count);
  const LayerRange all{0, checked_cast<uint16_t>(sender_.config().layer_count)};
  for (uint32_t block = 0; block < opened.cached_tokens / layout.block_tokens; ++block) {
    sender_.offer(work.attempt.transfer, block, opened.blocks[block].slot(), all);
  }
  engine_.begin_prefill(sequence);
  take_early_grant(request, turn);
}

void PrefillNode::on_message(PeerId from, const Grant& grant, Turn& turn) {
  if (!peers_.is(from, Role::kDecode)) return;
  const Attempt& attempt = grant.attempt;
  if (PrefillRequest* const request = requests_.find(attempt)) {
    take_grant(*request, from, grant.first_block, turn);
    return;
  }
  if (ended_.contains(attempt.request, attempt.epoch)) {  // D must not wait out its lease for what ended before
    send(from, Failed{attempt, ErrorCode::kCancelled, "the attempt ended at the prefill node before the grant came"},
         turn);
    return;
  }
  std::erase_if(early_grants_, [&](const EarlyGrant& one) { return one.attempt == attempt && one.from == from; });
  if (early_grants_.size() >= config_.requests_max) early_grants_.pop_front();
  early_grants_.push_back({attempt, from, grant.first_block, turn.now + config_.lease});
}

void PrefillNode::take_early_grant(PrefillRequest& request, Turn& turn) {
  const auto early = std::find_if(early_grants_.begin(), early_grants_.end(), [&](const EarlyGrant& one) {
    return one.attempt == request.attempt && peers_.is_process(one.from, request.decode);
  });
  if (early == early_grants_.end()) return;
  const EarlyGrant grant = *early;
  early_grants_.erase(early);
  take_grant(request, grant.from, grant.first_block, turn);
}

void PrefillNode::take_grant(PrefillRequest& request, PeerId from, uint32_t first_block, Turn& turn) {
  if (!peers_.is_process(from, request.decode) || request.first_block) return;
  const uint32_t prompt_tokens = checked_cast<uint32_t>(request.work.prompt.size());
  const uint32_t block_count = engine_.cache().config().layout.blocks_for(prompt_tokens);
  if (first_block > block_count) {
    fail_both(request,
              {ErrorCode::kCorrupt, fmt::format("the decode node granted blocks from {} on, but the prompt has {}",
                                                first_block, block_count)},
              turn);
    return;
  }
  request.first_block = first_block;
  request.lease_due = turn.now + config_.lease / 4;
  if (request.holding()) {
    send_done(request, turn);
    if (request.ended) {
      release(request);
      return;
    }
  }
  // With nothing to send the link does not matter.
  if (first_block == block_count || peers_.bulk_ready(from)) {
    start_streaming(request, from);
  } else {
    request.link_until = turn.now + sender_.config().answer_max;
  }
}

void PrefillNode::start_streaming(PrefillRequest& request, PeerId to) {
  sender_.grant(request.attempt.transfer, request.attempt.epoch, to, *request.first_block);
  request.streaming = true;
  request.link_until = kNever;
}

// Offers `layers` of every prompt block that the step in flight completes.
void PrefillNode::offer_step(LayerRange layers) {
  for (const CompletedBlocks& completed : engine_.completed_by(*engine_.step_in_flight())) {
    const PrefillRequest& request = *requests_.find(completed.sequence);
    const std::vector<SlotPin>& blocks = engine_.sequence(completed.sequence).blocks;
    for (uint32_t block = completed.block_first; block < completed.block_first + completed.block_count; ++block) {
      sender_.offer(request.attempt.transfer, block, blocks[block].slot(), layers);
    }
  }
}

void PrefillNode::take_scores(PrefillRequest& request, const ScoredTokens& scored, Turn& turn) {
  if (!scored.finite) {
    fail_both(request, {ErrorCode::kInternal, "the prompt's logits are not finite"}, turn);
    return;
  }
  for (PromptLogprobs& message :
       in_messages({request.attempt, scored.position_first, scored.logprob_count, scored.logprobs}))
    send(request.gateway, std::move(message), turn);
}

void PrefillNode::take_token(PrefillRequest& request, const EngineToken& token, Turn& turn) {
  if (!token.finite) {
    fail_both(request, {ErrorCode::kInternal, "the prompt's logits are not finite"}, turn);
    return;
  }
  const FinishReason finish = finish_of(request.work, 0, token.token);
  Token message{request.attempt, 0, token.token, finish, token.logits_digest, {}, token.logprobs};
  const TimePoint first_step = request.first_step.value_or(turn.now);
  message.timings.wait_us = timing_us(first_step - request.arrived);
  message.timings.compute_us = timing_us(turn.now - first_step);
  message.timings.cached_tokens = request.cached_tokens;
  send(request.gateway, message, turn);

  request.first_token = token.token;
  request.ended = finish != FinishReason::kNone;
  request.hold_until = turn.now + config_.hold_max;
  const Sequence& sequence = engine_.sequence(*request.sequence);
  const uint32_t block_count = engine_.cache().config().layout.blocks_for(sequence.prompt_tokens);
  for (uint32_t block = 0; block < block_count && !request.ended; ++block) {
    request.held.push_back(engine_.cache().pin(sequence.blocks[block].slot(), PinKind::kReader));
  }
  engine_.close(*request.sequence);
  requests_.drop_sequence(request);
  if (request.ended) sender_.end(request.attempt.transfer);
  if (!request.first_block) return;
  send_done(request, turn);
  if (request.ended) release(request);  // D frees what it reserved; nothing here waits for that
}

void PrefillNode::send_done(PrefillRequest& request, Turn& turn) {
  const uint32_t prompt_tokens = checked_cast<uint32_t>(request.work.prompt.size());
  send_decode(request, PrefillDone{request.attempt, prompt_tokens, request.first_token, request.ended}, turn);
  request.done_sent = true;
}

void PrefillNode::on_message(PeerId from, const Committed& committed, Turn&) {
  PrefillRequest* const request = requests_.find(committed.attempt);
  if (request == nullptr || !request->done_sent || !peers_.is_process(from, request->decode)) return;
  release(*request);
}

void PrefillNode::on_message(PeerId from, const Cancel& cancel, Turn&) { end_by_gateway(from, cancel.attempt); }

void PrefillNode::on_message(PeerId from, const Yield& yield, Turn& turn) {
  PrefillRequest* const request = requests_.find(yield.attempt);
  if (request == nullptr || request->holding() || !peers_.is_process(from, request->decode)) return;
  fail_both(*request, {ErrorCode::kNoSpace, "the decode node needs its blocks for what decodes there"}, turn);
}

void PrefillNode::on_message(PeerId from, const Failed& failed, Turn&) {
  const Attempt& attempt = failed.attempt;
  if (peers_.is(from, Role::kGateway)) {
    end_by_gateway(from, attempt);
  } else if (PrefillRequest* const request = requests_.find(attempt)) {  // D told G itself
    if (peers_.is_process(from, request->decode)) release(*request);
  } else if (peers_.is(from, Role::kDecode) && requests_.find(attempt.request) == nullptr) {
    ended_.add(attempt.request, attempt.epoch);  // it overtook its Prefill, which is not worth starting
  }
}

// Also for attempts that are yet to come: the word may overtake its Prefill.
void PrefillNode::end_by_gateway(PeerId from, const Attempt& attempt) {
  if (!peers_.is(from, Role::kGateway)) return;
  if (PrefillRequest* const request = requests_.find(attempt.request)) {
    if (request->gateway != from || request->attempt.epoch > attempt.epoch) return;
    release(*request);
  }
  ended_.add(attempt.request, attempt.epoch);
  std::erase_if(early_grants_, [&](const EarlyGrant& one) {
    return one.attempt.request == attempt.request && one.attempt.epoch <= attempt.epoch;
  });
}

void PrefillNode::emit(PrefillEffect effect, Turn& turn) { turn.effects.push_back(std::move(effect)); }

void PrefillNode::send(PeerId to, Message message, Turn& turn) { emit(SendMessage{to, std::move(message)}, turn); }

void PrefillNode::send_decode(const PrefillRequest& request, Message message, Turn& turn) {
  if (const std::optional<PeerId> decode = peers_.find(request.decode)) send(*decode, std::move(message), turn);
}

// Tells whoever is connected. G has its last token once `ended`, so only D hears of a failure after that.
void PrefillNode::fail_both(PrefillRequest& request, const Error& error, Turn& turn) {
  const Failed failed{request.attempt, error.code, error.detail};
  if (!request.ended && peers_.hello(request.gateway) != nullptr) send(request.gateway, failed, turn);
  send_decode(request, failed, turn);
  release(request);
}

// hold_max passed without Committed. A D that granted may have committed: it alone knows, and tells G if it did not.
void PrefillNode::give_up_hold(PrefillRequest& request, Turn& turn) {
  const Error error{ErrorCode::kDeadline, "the prefill node held the blocks to its limit without a commit"};
  if (!request.first_block) {
    fail_both(request, error, turn);
    return;
  }
  send_decode(request, Failed{request.attempt, error.code, error.detail}, turn);
  release(request);
}

void PrefillNode::release(PrefillRequest& request) {
  if (request.sequence) {
    engine_.close(*request.sequence);
    requests_.drop_sequence(request);
  }
  sender_.end(request.attempt.transfer);
  ended_.add(request.attempt.request, request.attempt.epoch);
  requests_.erase(request);
}

}  // namespace spillway

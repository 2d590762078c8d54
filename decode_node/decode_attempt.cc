// The life of one attempt at a decode node, message by message.
#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "decode_node/decode_node.h"

namespace spillway {

void DecodeNode::on_message(PeerId from, const Reserve& reserve, Turn& turn) {
  if (!admits(from, reserve, turn)) return;
  const Work& work = reserve.work;
  const Attempt& attempt = work.attempt;
  const bool colocated = is_colocated(reserve);  // then there is no P, whoever may claim this process's boot id
  const std::optional<PeerId> prefill = peers_.find(reserve.prefill);
  const Result<SequenceId> sequence = open(reserve);
  peers_.placed(from, attempt.transfer, sequence.has_value());
  if (!sequence) {
    ended_.add(attempt.request, attempt.epoch);
    const Failed refusal{attempt, sequence.error().code, sequence.error().detail};
    send(from, refusal, turn);
    if (prefill && !colocated) send(*prefill, refusal, turn);
    return;
  }
  DecodeRequest record;
  record.attempt = attempt;
  record.gateway = from;
  record.prefill = reserve.prefill;
  record.work = work;
  record.sequence = *sequence;
  record.cached_tokens = engine_.sequence(*sequence).cached_tokens;
  record.first_block = record.cached_tokens / engine_.cache().config().layout.block_tokens;
  record.arrived = turn.now;
  if (colocated) {
    record.state = State::kDecoding;
    engine_.begin_prefill(*sequence);
  } else {
    record.lease_until = turn.now + config_.lease;
  }
  DecodeRequest& request = requests_.insert(std::move(record));
  if (prefill && !colocated) start_receiving(request, *prefill, turn);
}

// A new attempt, not a late, doubled or fenced one; ends an older attempt of the same request.
bool DecodeNode::admits(PeerId from, const Reserve& reserve, Turn& turn) {
  const Attempt& attempt = reserve.work.attempt;
  if (!peers_.is(from, Role::kGateway) || ended_.contains(attempt.request, attempt.epoch)) return false;
  DecodeRequest* const older = requests_.find(attempt.request);
  if (older == nullptr) return true;
  if (older->attempt.epoch >= attempt.epoch || older->gateway != from) return false;
  release(*older, turn);
  return true;
}

// Each reservation that still waits for P will want a place in the receiver too; one that is colocated never does.
bool DecodeNode::has_room_for(const Reserve& reserve) const {
  if (requests_.full()) return false;
  if (is_colocated(reserve)) return true;
  const size_t waiting =
      requests_.select([](const DecodeRequest& one) { return one.state == State::kReserved; }).size();
  return receiver_.open_transfers() + waiting < receiver_.config().transfers_max;
}

Result<SequenceId> DecodeNode::open(const Reserve& reserve) {
  const Work& work = reserve.work;
  const bool colocated = is_colocated(reserve);
  if (colocated && !config_.colocates)
    return fail(ErrorCode::kUnsupported, "the decode node computes no prompts: it was started without --colocate");
  if (auto checked = check_work(work, config_.vocab, engine_.config().max_model_len); !checked) {
    return tl::unexpected(checked.error());
  }
  const TransferId transfer = work.attempt.transfer;
  if (requests_.find(transfer) != nullptr || receiver_.knows(transfer)) {
    return fail(ErrorCode::kInvalidArgument, "the transfer id is in use by another request");
  }
  if (!has_room_for(reserve)) {
    return fail(ErrorCode::kNoSpace, fmt::format("the decode node holds {} requests and {} transfers, its limit",
                                                 requests_.size(), receiver_.open_transfers()));
  }
  const uint32_t prompt_tokens = checked_cast<uint32_t>(work.prompt.size());
  const uint32_t computed_at_least = !colocated          ? 0
                                     : work.score_prompt ? prompt_tokens
                                                         : 1;  // a cached one has no logits
  // The last token is sampled and sent, but never becomes KV.
  return engine_.open({.prompt = work.prompt,
                       .reserve_tokens = prompt_tokens + work.output_tokens_max - 1,
                       .reuse_tokens_max = prompt_tokens - computed_at_least,
                       .sampling = work.sampling,
                       .stop_tokens = work.stop_tokens,
                       .tenant = work.tenant,
                       .public_prefix = work.public_prefix,
                       .digest_logits = work.digest_logits,
                       .logprob_count = work.logprob_count,
                       .score_prompt = colocated && work.score_prompt});
}

// P is connected: names the destinations, then tells P which blocks are wanted. Parts land as they come, so P must lay
// them out as this node does.
void DecodeNode::start_receiving(DecodeRequest& request, PeerId from, Turn& turn) {
  const BlockEncoding& theirs = peers_.hello(from)->encoding;
  const BlockEncoding& ours = engine_.cache().config().encoding;
  if (theirs.order != ours.order || theirs.dtype != ours.dtype) {
    fail_both(request,
              {ErrorCode::kUnsupported,
               fmt::format("\"{}\" stores KV blocks in order {}, dtype {}; the decode node reads order {}, dtype {}",
                           peers_.hello(from)->name, static_cast<int>(theirs.order), kv_dtype_name(theirs.dtype),
                           static_cast<int>(ours.order), kv_dtype_name(ours.dtype))},
              turn);
    return;
  }
  const Attempt& attempt = request.attempt;
  const std::vector<SlotPin>& blocks = engine_.sequence(*request.sequence).blocks;
  const uint32_t prompt_tokens = checked_cast<uint32_t>(request.work.prompt.size());
  const uint32_t block_count = engine_.cache().config().layout.blocks_for(prompt_tokens);
  std::vector<SlotId> slots;
  for (uint32_t block = request.first_block; block < block_count; ++block) slots.push_back(blocks[block].slot());
  std::optional<OpenTransfer> job =
      receiver_.open(attempt.transfer, attempt.epoch, from, request.first_block, std::move(slots));
  if (job) emit(std::move(*job), turn);
  request.state = State::kReceiving;
  send(from, Grant{attempt, request.first_block}, turn);
}

// The record that a message of P is about, as long as P matters to it.
DecodeRequest* DecodeNode::uncommitted(const Attempt& attempt, PeerId from) {
  DecodeRequest* const request = requests_.find(attempt);
  if (request == nullptr || request->state == State::kDecoding) return nullptr;
  return peers_.is_process(from, request->prefill) ? request : nullptr;
}

void DecodeNode::on_message(PeerId from, const Lease& lease, Turn& turn) {
  DecodeRequest* const request = uncommitted(lease.attempt, from);
  if (request == nullptr) return;
  // No peer can make us hold on for longer than our own limit.
  const Duration wanted = std::min<Duration>(std::chrono::milliseconds(lease.duration_ms), config_.lease);
  request->lease_until = std::max(request->lease_until, turn.now + wanted);
}

void DecodeNode::on_message(PeerId from, const PrefillDone& done, Turn& turn) {
  DecodeRequest* const request = uncommitted(done.attempt, from);
  if (request == nullptr || request->done) return;
  if (done.prompt_tokens != request->work.prompt.size() || done.first_token >= config_.vocab) {
    fail_both(*request,
              {ErrorCode::kCorrupt,
               done.first_token >= config_.vocab
                   ? fmt::format("the prefill node sampled a token outside the vocabulary of {}", config_.vocab)
                   : fmt::format("the prefill node computed {} prompt tokens of {}", done.prompt_tokens,
                                 request->work.prompt.size())},
              turn);
    return;
  }
  if (done.ended || finish_of(request->work, 0, done.first_token) != FinishReason::kNone) {
    send(from, Committed{done.attempt}, turn);
    release(*request, turn);
    return;
  }
  request->done = done;
  request->done_at = turn.now;
  request->landed_encoding = peers_.hello(from)->encoding;
  request->lease_until = std::max(request->lease_until, turn.now + config_.lease);
  commit_if_complete(*request, turn);
}

void DecodeNode::commit_if_complete(DecodeRequest& request, Turn& turn) {
  if (!request.done || !receiver_.complete(request.attempt.transfer)) return;
  close_transfer(request, turn);
  send_prefill(request, Committed{request.attempt}, turn);
  const KvLayout& layout = engine_.cache().config().layout;
  const uint32_t received = layout.blocks_for(request.done->prompt_tokens) - request.first_block;
  totals_.transfers += received > 0 ? 1 : 0;
  totals_.transfer_bytes += received * layout.block_bytes();
  engine_.begin_decode(*request.sequence, request.done->first_token, request.landed_encoding);
  request.state = State::kDecoding;
  request.committed_at = turn.now;
  request.lease_until = kNever;
}

void DecodeNode::on_message(PeerId from, const Cancel& cancel, Turn& turn) {
  end_by_gateway(from, cancel.attempt, turn);
}

void DecodeNode::on_message(PeerId from, const Failed& failed, Turn& turn) {
  const Attempt& attempt = failed.attempt;
  if (peers_.is(from, Role::kGateway)) {
    end_by_gateway(from, attempt, turn);
  } else if (DecodeRequest* const request = uncommitted(attempt, from)) {
    // P may know no gateway any more, or have told only us. A refusal it told G itself, and from us it would be ours: G
    // would let this node rest, not P. The same holds for the answer to a Grant that came after the refusal.
    const bool told = failed.code == ErrorCode::kNoSpace || failed.code == ErrorCode::kCancelled;
    if (!told) send(request->gateway, failed, turn);
    if (!told && request->state == State::kReceiving) ++totals_.transfer_failures;
    release(*request, turn);
  } else if (peers_.is(from, Role::kPrefill) && requests_.find(attempt.request) == nullptr) {
    ended_.add(attempt.request, attempt.epoch);  // it overtook its Reserve, which would wait in vain
  }
}

// Also for attempts that are yet to come: the word may overtake its Reserve.
void DecodeNode::end_by_gateway(PeerId from, const Attempt& attempt, Turn& turn) {
  if (!peers_.is(from, Role::kGateway)) return;
  if (DecodeRequest* const request = requests_.find(attempt.request)) {
    if (request->gateway != from || request->attempt.epoch > attempt.epoch) return;
    release(*request, turn);
  }
  ended_.add(attempt.request, attempt.epoch);
}

void DecodeNode::emit(DecodeEffect effect, Turn& turn) { turn.effects.push_back(std::move(effect)); }

void DecodeNode::send(PeerId to, Message message, Turn& turn) { emit(SendMessage{to, std::move(message)}, turn); }

void DecodeNode::send_prefill(const DecodeRequest& request, Message message, Turn& turn) {
  if (const std::optional<PeerId> prefill = peers_.find(request.prefill)) send(*prefill, std::move(message), turn);
}

// Tells whoever is connected and may hold something: P holds nothing after the commit.
void DecodeNode::fail_both(DecodeRequest& request, const Error& error, Turn& turn) {
  const Failed failed{request.attempt, error.code, error.detail};
  if (peers_.hello(request.gateway) != nullptr) send(request.gateway, failed, turn);
  if (request.state != State::kDecoding) send_prefill(request, failed, turn);
  if (request.state == State::kReceiving) ++totals_.transfer_failures;
  release(request, turn);
}

void DecodeNode::release(DecodeRequest& request, Turn& turn) {
  close_transfer(request, turn);
  engine_.close(*request.sequence);
  ended_.add(request.attempt.request, request.attempt.epoch);
  requests_.erase(request);
}

// Due at the commit and at every exit before it; the slots stay pinned until TransferClosed.
void DecodeNode::close_transfer(const DecodeRequest& request, Turn& turn) {
  if (std::optional<CloseTransfer> job = receiver_.close(request.attempt.transfer)) emit(*job, turn);
}

}  // namespace spillway

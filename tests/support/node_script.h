#pragma once

#include <chrono>
#include <cstdint>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "transfer/messages.h"
#include "transfer/transfer_job.h"

// What the scripted tests of both node roles share: the cast of processes and one piece of work.
namespace spillway::script {

inline constexpr BootId kGatewayBoot{100}, kPrefillBoot{200}, kDecodeBoot{300}, kStrangerBoot{400};
inline constexpr PeerId kGateway{1}, kPrefillPeer{2}, kDecodePeer{3}, kStranger{4}, kNobody{99};
inline constexpr uint32_t kVocab = 1000;
inline constexpr uint16_t kLayers = 30;
inline constexpr uint32_t kBlockTokens = 64;
inline constexpr uint32_t kChunkTokens = 256;
inline constexpr TokenId kStopToken = 2;
inline constexpr Duration kMs = std::chrono::milliseconds(1);

inline KvCacheConfig cache_config(uint32_t slots) {
  KvCacheConfig config;
  config.layout = {.layer_count = kLayers, .kv_heads = 1, .head_dim = 8, .block_tokens = kBlockTokens};
  config.encoding.numerics = NumericsClass{1};
  config.slot_count = slots;
  return config;
}

inline EngineConfig engine_config(bool announce_layers) {
  return {.limits = {.tokens_max = 512, .chunk_tokens = kChunkTokens, .sequences_max = 8},
          .max_model_len = 2048,
          .announce_layers = announce_layers,
          .vocab = kVocab};
}

inline Hello hello(Role role, BootId boot) {
  Hello made;
  made.role = role;
  made.boot = boot;
  made.encoding.numerics = NumericsClass{1};
  if (role != Role::kGateway) made.bulk_endpoint = {std::byte{1}};
  return made;
}

inline Attempt attempt(uint64_t request = 1, uint32_t epoch = 5) {
  return {{kGatewayBoot, request}, {kGatewayBoot, request * 100 + epoch}, Epoch{epoch}};
}

// A prompt whose tokens depend on the request, so that two requests share no prefix.
inline Work work(const Attempt& named, uint32_t prompt_tokens, uint32_t output_tokens = 4) {
  Work made;
  made.attempt = named;
  for (uint32_t i = 0; i < prompt_tokens; ++i) {
    made.prompt.push_back(3 + static_cast<TokenId>((i * 7 + named.request.counter * 131) % (kVocab - 3)));
  }
  made.output_tokens_max = output_tokens;
  made.stop_tokens = {kStopToken};
  return made;
}

// Every message there is, about this attempt.
inline std::vector<Message> every_message(const Attempt& about, uint32_t prompt_tokens) {
  const Work asked = work(about, prompt_tokens);
  return {Hello{},
          HelloRefused{"no"},
          Load{1, 2, 3},
          PeerInfo{kStrangerBoot, "ipc://elsewhere"},
          Prefill{asked, kDecodeBoot},
          Reserve{asked, kPrefillBoot},
          Reserve{asked, kDecodeBoot},
          Grant{about, 0},
          Grant{about, 1u << 30},
          PrefillDone{about, prompt_tokens, 7, false},
          PrefillDone{about, prompt_tokens, 7, true},
          PrefillDone{about, prompt_tokens + 1, 7, false},
          PrefillDone{about, prompt_tokens, kVocab, false},
          Committed{about},
          spillway::Lease{about, 0},
          spillway::Lease{about, UINT32_MAX},
          Token{about, 0, 7, FinishReason::kNone, 0, {}},
          Cancel{about},
          Yield{about},
          Failed{about, ErrorCode::kInternal, "scripted"},
          Heartbeat{},
          MayLeave{},
          Want{1},
          Want{UINT32_MAX}};
}

// What a node tells its only gateway: all that is free is this one's to promise.
inline Load alone(Load load, uint32_t sequences_free, uint64_t newest_transfer = 0) {
  load.blocks_share = load.blocks_free;
  load.sequences_share = sequences_free;
  load.newest_transfer = newest_transfer;
  return load;
}

// The attempt itself, the same under another transfer id, an older and a newer one of its request, a stranger.
inline std::vector<Attempt> attempts_around(const Attempt& about) {
  Attempt other_transfer = about;
  other_transfer.transfer.counter += 7;
  Attempt older = attempt(about.request.counter, static_cast<uint32_t>(about.epoch) - 1);
  Attempt newer = attempt(about.request.counter, static_cast<uint32_t>(about.epoch) + 1);
  return {about, other_transfer, older, newer, attempt(77)};
}

}  // namespace spillway::script

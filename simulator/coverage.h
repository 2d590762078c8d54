#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>

#include "simulator/faults.h"
#include "transfer/messages.h"

namespace spillway {

// Which message met an attempt in which state at its receiver, counted. The state is inferred from what that process
// heard and said, so no node needs to tell.
class Coverage {
 public:
  enum class State : uint8_t {
    kUnknown,     // never heard of
    kReserved,    // P: computes, no Grant yet. D: holds slots, no Grant sent, or computes. G: dispatched, no token
    kStreaming,   // P: computes, granted. D: granted
    kSampled,     // P: token 0 is out, no Grant yet. D: PrefillDone came, parts are missing. G: has token 0
    kCommitWait,  // P: PrefillDone is out
    kDecoding,    // D: committed, or token 0 is out. G: has a token of D that is not the first
    kEnded,       // over at that process, or fenced by a later epoch
  };
  static constexpr size_t kStates = 7;
  using Counts = std::array<uint64_t, kStates>;

  void delivered(ProcessId to, Role role, const Message& message);
  void sent(ProcessId from, Role role, const Message& message);
  void forget(ProcessId process);              // it died
  void between_gateways(const Message& sent);  // in a world of several, whose nodes keep what they announce
  void left() { ++left_; }                     // a node, in order
  void wants(uint64_t made, uint64_t met) { wants_made_ += made, wants_met_ += met; }
  void add(const Coverage& other);
  // Rows "Token -> gateway", columns states.
  std::string table() const;
  uint64_t count(Role receiver, std::string_view message, State state) const;
  uint64_t preemptions() const { return preemptions_; }
  uint64_t recomputed_tokens() const { return recomputed_tokens_; }
  uint64_t wants_made() const { return wants_made_; }
  uint64_t wants_met() const { return wants_met_; }
  uint64_t refusals() const { return refusals_; }            // for lack of space, where several gateways share it
  uint32_t attempts_most() const { return attempts_most_; }  // of one request there
  uint64_t drains() const { return left_; }
  uint64_t stalls() const { return stalls_; }  // of steps, announced
  uint64_t transfer_stalls() const { return transfer_stalls_; }
  uint64_t yields() const { return yields_; }
  uint64_t colocated() const { return colocated_; }  // prompts computed by decode nodes

 private:
  State& state(ProcessId process, const Attempt& attempt) { return states_[{process, attempt}]; }

  std::map<std::pair<ProcessId, Attempt>, State> states_;
  std::map<std::pair<Role, std::string>, Counts> counts_;
  std::map<ProcessId, Load> loads_;  // the last each process announced
  uint64_t preemptions_ = 0, recomputed_tokens_ = 0;
  uint64_t wants_made_ = 0, wants_met_ = 0, refusals_ = 0, left_ = 0, stalls_ = 0, transfer_stalls_ = 0, yields_ = 0;
  uint64_t colocated_ = 0;
  uint32_t attempts_most_ = 0;
};

}  // namespace spillway

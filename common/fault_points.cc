#include "common/fault_points.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "common/check.h"

namespace spillway {
namespace {

constexpr std::array<std::string_view, 20> kNames = {
    "gateway-arrived",   // G: a request left the HTTP side, nothing done yet
    "gateway-dispatch",  // G: a Prefill or Reserve is about to be sent
    "gateway-token",     // G: a token is about to go to its stream
    "gateway-end",       // G: the end of an answer is about to go to its stream
    "prefill-received",  // P: a Prefill message arrived, nothing done yet
    "prefill-step",      // P: a step is about to be handed to compute
    "prefill-compute",   // P: a step began, on the compute thread
    "prefill-layer",     // P: a layer of a step is done, its parts not yet queued
    "prefill-send",      // P: parts are about to be queued for transfer
    "prefill-transfer",  // P: parts were taken by the transfer thread, not yet sent
    "prefill-done",      // P: PrefillDone is about to be sent
    "decode-reserved",   // D: a Reserve message arrived, nothing done yet
    "decode-transfer",   // D: an attempt was taken by the transfer thread, its blocks may come
    "decode-landed",     // D: parts landed, not yet counted
    "decode-commit",     // D: all parts landed, the sequence is about to join the batch
    "decode-step",       // D: a step is about to be handed to compute
    "decode-compute",    // D: a step began, on the compute thread
    "decode-token",      // D: a Token message is about to be sent
    "prefill-nan",       // P: a step that samples is about to be handed to compute: one row's logits become NaN
    "decode-nan",        // D: likewise
};

constexpr std::string_view kStop = ":stop", kWedge = ":wedge", kSpoils = "-nan";

sigset_t continue_signal() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGCONT);
  return signals;
}

}  // namespace

std::span<const std::string_view> FaultPoints::names() { return kNames; }

FaultPoints::FaultPoints(std::span<const std::string> specs) {
  for (const std::string& spec : specs) {
    std::string_view place = spec;
    Action action = Action::kKill;
    if (place.ends_with(kStop)) action = Action::kStop;
    if (place.ends_with(kWedge)) action = Action::kWedge;
    if (action == Action::kStop) place.remove_suffix(kStop.size());
    if (action == Action::kWedge) {
      place.remove_suffix(kWedge.size());
      const sigset_t waited_for = continue_signal();
      ::pthread_sigmask(SIG_BLOCK, &waited_for, nullptr);
    }
    const size_t colon = place.find(':');
    const std::string_view name = place.substr(0, colon);
    uint64_t passes = 1;
    if (colon != std::string_view::npos) {
      const char* const end = place.data() + place.size();
      const auto [stop, error] = std::from_chars(place.data() + colon + 1, end, passes);
      if (error != std::errc{} || stop != end || passes == 0)
        throw SetupError("--fault " + spec + ": the part after ':' must be a count of at least 1");
    }
    const auto* const known = std::find(kNames.begin(), kNames.end(), name);
    if (known == kNames.end()) {
      std::string list;
      for (const std::string_view one : kNames) list.append(list.empty() ? "" : ", ").append(one);
      throw SetupError("--fault " + spec + ": no such fault point; there are " + list);
    }
    if (action != Action::kKill && name.ends_with(kSpoils))
      throw SetupError("--fault " + spec + ": this point spoils a result and never halts; leave the last part out");
    armed_.push_back({*known, passes, action});
  }
}

bool FaultPoints::spoils(std::string_view name) {
  bool now = false;
  for (Armed& armed : armed_) now |= armed.name == name && armed.passes_left > 0 && --armed.passes_left == 0;
  return now;
}

void FaultPoints::pass(std::string_view name) {
  for (Armed& armed : armed_)
    if (armed.name == name && armed.passes_left > 0 && --armed.passes_left == 0) act(armed.action);
}

void FaultPoints::act(Action action) {
  switch (action) {
    case Action::kKill: ::kill(::getpid(), SIGKILL); break;
    case Action::kStop: ::kill(::getpid(), SIGSTOP); break;
    case Action::kWedge: {
      const sigset_t waited_for = continue_signal();
      int taken = 0;
      ::sigwait(&waited_for, &taken);
      break;
    }
  }
}

}  // namespace spillway

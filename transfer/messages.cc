#include "transfer/messages.h"

#include <fmt/format.h>

#include <array>

namespace spillway {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kGateway: return "gateway";
    case Role::kPrefill: return "prefill";
    case Role::kDecode: return "decode";
  }
  return "unknown";
}

std::string process_name(const Hello& hello) {
  if (!hello.name.empty()) return hello.name;
  return fmt::format("a {}{}", role_name(hello.role), hello.role == Role::kGateway ? "" : " node");
}

std::string_view message_name(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "Hello",  "HelloRefused", "Load",      "PeerInfo", "Prefill", "Reserve",
      "Grant",  "PrefillDone",  "Committed", "Lease",    "Token",   "PromptLogprobs",
      "Cancel", "Failed",       "Heartbeat", "MayLeave", "Want",    "Yield"};
  return kNames[message.index()];
}

}  // namespace spillway

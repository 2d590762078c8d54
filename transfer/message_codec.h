#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/result.h"
#include "transfer/messages.h"

namespace spillway {

// One Message as a FlatBuffer (messages.fbs) with the sender's boot id. Pure; any thread.
struct Envelope {
  BootId sender{};
  Message message;
};
// Texts for people (name, reason, detail) are cut to their bound at a UTF-8 boundary. REQUIRES: all else within bounds.
std::vector<std::byte> encode_message(BootId sender, const Message& message);
// Verifies the buffer and every bound of messages.h before reading; kCorrupt says what was wrong. Any alignment. Of a
// Hello of another protocol version only version, boot, name and model are read: enough to refuse it by name.
Result<Envelope> decode_message(std::span<const std::byte> bytes);

}  // namespace spillway

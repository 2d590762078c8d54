#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/openai_response.h"
#include "text/chat_template.h"

namespace spillway {

// The members of a message that are known. Behind the first two, what a model would have to see and this server would
// drop: refused unless switched off.
inline constexpr std::string_view kMessageMembers[] = {
    "role", "content", "tool_calls", "function_call", "tool_call_id", "audio", "images", "image", "videos", "files"};
inline constexpr auto kUnsupportedMembers = std::span(kMessageMembers).subspan(2);

// One message of a chat: its role, and its text, which may come in parts. `where` names it in errors. To `ignored` go
// the names of its unknown members and its parts', as "messages[].x": the same for all messages. Pure.
Parsed<ChatMessage> read_message(const nlohmann::json& json, const std::string& where,
                                 std::vector<std::string>& ignored);

}  // namespace spillway

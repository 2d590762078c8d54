#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "gateway/openai_response.h"
#include "text/chat_template.h"

namespace spillway {

// One message of a chat: its role, and its text, which may come in parts. `where` names it in errors. Pure.
Parsed<ChatMessage> read_message(const nlohmann::json& json, const std::string& where);

}  // namespace spillway

#include "gateway/chat_messages.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "gateway/request_fields.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kPartMembers[] = {"type", "text"};

// The text of one message part list: [{"type": "text", "text": ...}, ...].
Parsed<std::string> read_parts(const Json& parts, const std::string& where, std::vector<std::string>& ignored) {
  std::string text;
  for (size_t index = 0; index < parts.size(); ++index) {
    const Json& part = parts[index];
    const std::string place = fmt::format("{}.content[{}]", where, index);
    if (!part.is_object() || !part.contains("type") || !part["type"].is_string())
      return refuse("messages", place + " must be an object with a type", "invalid_type");
    const auto& type = part["type"].get_ref<const std::string&>();
    if (type != "text")
      return refuse("messages", fmt::format("{} is of type '{}': only text is supported", place, printable(type)),
                    "unsupported");
    if (!part.contains("text") || !part["text"].is_string())
      return refuse("messages", place + ".text must be a string", "invalid_type");
    text += part["text"].get_ref<const std::string&>();
    add_unknown_members("messages[].content[].", part, kPartMembers, ignored);
  }
  return text;
}

}  // namespace

Parsed<ChatMessage> read_message(const Json& json, const std::string& where, std::vector<std::string>& ignored) {
  if (!json.is_object()) return refuse("messages", where + " must be an object {role, content}", "invalid_type");
  ChatMessage message;
  const Json* const role = find_field(json, "role");
  if (role == nullptr || !role->is_string())
    return refuse("messages", where + ".role must be a string", "invalid_type");
  message.role = role->get<std::string>();
  if (message.role == "developer") message.role = "system";  // OpenAI's newer word for it
  if (message.role != "system" && message.role != "user" && message.role != "assistant")
    return refuse("messages", where + ".role must be system, developer, user or assistant", "unsupported");
  for (const std::string_view name : kUnsupportedMembers)
    if (const Json* const value = find_field(json, name); value != nullptr && !switched_off(*value))
      return refuse("messages", fmt::format("{}.{} is not supported by this server", where, name), "unsupported");
  add_unknown_members("messages[].", json, kMessageMembers, ignored);
  const Json* const content = find_field(json, "content");
  if (content == nullptr || !(content->is_string() || content->is_array()))
    return refuse("messages", where + ".content must be a string or a list of text parts", "invalid_type");
  if (content->is_string()) {
    message.content = content->get<std::string>();
    return message;
  }
  auto text = read_parts(*content, where, ignored);
  if (!text) return tl::unexpected(text.error());
  message.content = std::move(*text);
  return message;
}

}  // namespace spillway

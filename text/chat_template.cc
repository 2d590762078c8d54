#include "text/chat_template.h"

#include <fmt/format.h>

#include <utility>

#include "text/template_evaluator.h"
#include "text/template_syntax.h"
#include "text/utf8.h"

namespace spillway {

struct ChatTemplate::Program {
  TemplateStatement::Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  Result<TemplateStatement::Body> body = parse_template(source);
  if (!body) return tl::unexpected<Error>(body.error());
  return ChatTemplate(std::make_unique<Program>(Program{std::move(*body)}));
}

std::tm ChatTemplate::local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

Result<std::string> ChatTemplate::render(const Inputs& inputs) const {
  TemplateList messages;
  std::vector<TemplateDict> entries;
  entries.reserve(inputs.messages.size());  // the list points into it
  for (const ChatMessage& message : inputs.messages) {
    for (const std::string* const text : {&message.role, &message.content})
      if (valid_utf8_prefix(*text) < text->size())
        return fail(ErrorCode::kInvalidArgument, fmt::format("message {} is not valid UTF-8", entries.size()));
    entries.push_back({{"role", {std::string_view(message.role)}}, {"content", {std::string_view(message.content)}}});
    messages.push_back({&std::as_const(entries.back())});
  }
  // transformers passes none where there are no tools and documents; templates ask for them.
  TemplateDict globals = {{"messages", {&std::as_const(messages)}},
                          {"add_generation_prompt", {inputs.add_generation_prompt}},
                          {"bos_token", {std::string_view(inputs.bos_token)}},
                          {"eos_token", {std::string_view(inputs.eos_token)}},
                          {"tools", {TemplateNone{}}},
                          {"documents", {TemplateNone{}}}};
  if (inputs.now) globals.emplace_back("strftime_now", TemplateValue{TemplateFunction{"strftime_now"}});
  TemplateRun run(inputs.now ? &*inputs.now : nullptr);
  TemplateEvaluator evaluator(run, std::move(globals));
  evaluator.execute(program_->body);
  if (run.failed()) return tl::unexpected<Error>(run.error());
  return evaluator.take_output();
}

}  // namespace spillway

#include "common/check.h"
#include "tests/fuzz/fuzz_input.h"
#include "text/chat_template.h"
#include "text/template_run.h"
#include "text/utf8.h"

// Parts between 0x1e: the template's source, then role and content of each message. A template comes from a model file,
// messages from clients: whatever they hold, rendering ends within its bounds, twice in the same way, in whole
// characters or in an error with a reason.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  const auto parts = split_input(input_text(data, size), '\x1e', 1 + 2 * 8);
  const auto parsed = ChatTemplate::parse(parts[0]);
  if (!parsed) {
    CHECK(!parsed.error().detail.empty() && parsed.error().code != ErrorCode::kInternal);
    return 0;
  }
  ChatTemplate::Inputs inputs{.bos_token = "<|im_start|>", .eos_token = "<|im_end|>"};
  inputs.now = std::tm{};
  for (size_t at = 1; at + 1 < parts.size(); at += 2)
    inputs.messages.push_back({std::string(parts[at]), std::string(parts[at + 1])});
  for (const bool prompt : {true, false}) {
    inputs.add_generation_prompt = prompt;
    const auto rendered = parsed->render(inputs), again = parsed->render(inputs);
    CHECK(rendered.has_value() == again.has_value());
    if (!rendered) {
      CHECK(rendered.error().detail == again.error().detail && rendered.error().code != ErrorCode::kInternal);
      continue;
    }
    CHECK(*rendered == *again && rendered->size() <= kTemplateOutputMax);
    if (valid_utf8_prefix(parts[0]) == parts[0].size()) CHECK(valid_utf8_prefix(*rendered) == rendered->size());
  }
  return 0;
}

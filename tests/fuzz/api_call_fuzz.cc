#include <nlohmann/json.hpp>
#include <variant>

#include "common/check.h"
#include "gateway/api_call.h"
#include "gateway/api_choices.h"
#include "gateway/stop_matcher.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/tiny_model.h"
#include "transfer/message_codec.h"

// The body of a POST, as each route reads it. What is accepted keeps all bounds that later stages rely on: it can be
// encoded for the nodes and arrives there as it left. What is refused is a 4xx whose body is JSON. A chat
// gives the same twice.
namespace spillway {
namespace {

using Json = nlohmann::json;
constexpr uint32_t kModelLen = 256;
constexpr std::string_view kPaths[] = {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"};

const ServedModel& model() {
  static const GgufFile file = make_tiny_model({}).open();
  static const std::unique_ptr<Tokenizer> tokenizer = std::move(Tokenizer::from_gguf(file).value());
  static const ServedModel served = [] {
    ServedModel::Settings settings;
    settings.names = {"tiny", "org/second"};
    settings.max_model_len = kModelLen;
    return std::move(ServedModel::from_gguf(file, *tokenizer, std::move(settings)).value());
  }();
  return served;
}

void check_tokens(const std::vector<TokenId>& tokens) {
  for (const TokenId token : tokens) CHECK(token < model().tokenizer().vocab_size());
}

void check_ignored(const std::vector<std::string>& names) {
  CHECK(names.size() <= 8);
  for (const std::string& name : names) {  // they go into a header
    CHECK(name.size() <= std::string_view("messages[].content[].").size() + 64);
    for (const char c : name) CHECK(c >= 0x20 && c <= 0x7e && c != '"' && c != ',');
  }
}

void check_accepted(const ApiRequest& request) {
  CHECK(model().has_name(request.model));
  CHECK(request.stop.size() <= kStopStringsMax);
  for (const std::string& stop : request.stop) CHECK(!stop.empty() && stop.size() <= kStopBytesMax);
  uint64_t ids = 1;
  const auto choices = choice_requests(request, {}, {}, {BootId{1}, 1}, [&] { return RequestId{BootId{1}, ++ids}; });
  CHECK(!choices.empty() && choices.size() <= kAnswerChoicesMax && ids == choices.size());
  size_t entries = 0, prompt_tokens = 0;
  for (const GenerateRequest& choice : choices) {
    const Work work{.prompt = choice.prompt,
                    .output_tokens_max = choice.output_tokens_max,
                    .sampling = choice.sampling,
                    .stop_tokens = choice.stop_tokens,
                    .digest_logits = choice.digest_logits,
                    .logprob_count = choice.logprob_count,
                    .score_prompt = choice.score_prompt};
    CHECK(!work.prompt.empty() && work.output_tokens_max >= 1);
    CHECK(work.prompt.size() + work.output_tokens_max <= kModelLen);
    check_tokens(work.prompt);
    check_tokens(work.stop_tokens);
    entries += (work.output_tokens_max + (request.echo ? work.prompt.size() : 0)) * work.logprob_count;
    if (!choice.leader) prompt_tokens += work.prompt.size();
    const Reserve sent{work, BootId{}};
    const auto arrived = decode_message(encode_message(BootId{1}, sent));
    CHECK(arrived && std::get<Reserve>(arrived->message) == sent);
  }
  CHECK(entries <= kLogprobEntriesMax && prompt_tokens <= kListContexts * kModelLen);
}

// Text that /tokenize took apart is what /detokenize makes of the tokens: the vocabulary has every byte.
void check_plain(std::string_view path, std::string_view body, const PlainAnswer& answer) {
  const Json told = Json::parse(answer.body, nullptr, false);
  CHECK(told.is_object());
  if (path != "/tokenize") return;
  CHECK(told.at("count") == told.at("tokens").size());
  check_tokens(told.at("tokens").get<std::vector<TokenId>>());
  if (told.at("tokens").empty() || told.at("tokens").size() >= kModelLen) return;  // more than /detokenize takes
  const auto back = parse_api_call("/detokenize", Json{{"tokens", told.at("tokens")}}.dump(), model(), kModelLen, 0);
  CHECK(back.has_value());
  const Json asked = Json::parse(body);
  const auto given = [&](const char* name) { return asked.contains(name) && !asked[name].is_null(); };
  CHECK(int{given("prompt")} + int{given("content")} + int{given("messages")} == 1);
  if (given("messages")) return;
  const Json& text = asked[given("prompt") ? "prompt" : "content"];
  if (asked.contains("add_special") && asked["add_special"] == true) return;  // its token has a text too
  CHECK(Json::parse(std::get<PlainAnswer>(*back).body).at("prompt") == text);
}

void check_refused(const ApiError& error) {
  CHECK(error.status >= 400 && error.status < 500 && !error.message.empty());
  const Json told = Json::parse(error_body(error), nullptr, false);
  CHECK(told.is_object() && told.at("error").at("message").is_string());
}

void check_same(const Parsed<ApiCall>& one, const Parsed<ApiCall>& other) {
  CHECK(one.has_value() == other.has_value());
  if (!one) {
    CHECK(one.error().status == other.error().status && one.error().message == other.error().message);
  } else if (const auto* const plain = std::get_if<PlainAnswer>(&*one)) {
    CHECK(plain->body == std::get<PlainAnswer>(*other).body);
  } else {
    const auto &first = std::get<ApiRequest>(*one), &second = std::get<ApiRequest>(*other);
    CHECK(first.work.prompt == second.work.prompt && first.work.sampling == second.work.sampling);
    CHECK(first.work.output_tokens_max == second.work.output_tokens_max && first.stop == second.stop);
  }
}

}  // namespace
}  // namespace spillway

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// A quarter of the time the last digit of one of the body's numbers moves by one: most bounds are off by one when
// wrong.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  const auto is_digit = [](uint8_t byte) { return byte >= '0' && byte <= '9'; };
  for (size_t step = 0; seed % 4 == 0 && step < size; ++step) {
    const size_t at = (seed / 8 + step) % size;
    if (at == 0 || !is_digit(data[at]) || (at + 1 < size && is_digit(data[at + 1]))) continue;
    data[at] = static_cast<uint8_t>('0' + (data[at] - '0' + (seed / 4 % 2 == 0 ? 1 : 9)) % 10);
    return size;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

// The first byte picks the route: '0' completions, '1' chat, '2' /tokenize, '3' /detokenize.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  if (size == 0) return -1;
  const std::string_view body = input_text(data, size).substr(1), path = kPaths[data[0] % 4];
  const auto call = parse_api_call(path, body, model(), kModelLen, 7);
  if (path == kPaths[1]) check_same(call, parse_api_call(path, body, model(), kModelLen, 7));  // it draws markers
  if (!call) {
    check_refused(call.error());
    return 0;
  }
  std::visit([](const auto& one) { check_ignored(one.ignored); }, *call);
  if (const auto* const request = std::get_if<ApiRequest>(&*call)) check_accepted(*request);
  if (const auto* const plain = std::get_if<PlainAnswer>(&*call)) check_plain(path, body, *plain);
  return 0;
}

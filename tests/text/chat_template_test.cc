#include "text/chat_template.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "tests/text/demo_tokenizer.h"

namespace spillway {
namespace {

using Ids = std::vector<TokenId>;

std::vector<ChatMessage> messages_of(const nlohmann::json& list) {
  std::vector<ChatMessage> messages;
  for (const auto& message : list)
    messages.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
  return messages;
}

// What the generator's strftime_now() tells: Tuesday, 3 February 2026, 16:05:09.
std::tm test_time() {
  std::tm time{};
  time.tm_year = 126, time.tm_mon = 1, time.tm_mday = 3, time.tm_wday = 2, time.tm_yday = 33;
  time.tm_hour = 16, time.tm_min = 5, time.tm_sec = 9;
  return time;
}

std::string repeated(std::string_view unit, size_t count) {
  std::string text;
  for (; count > 0; --count) text += unit;
  return text;
}

ChatTemplate parsed(std::string_view source) {
  Result<ChatTemplate> made = ChatTemplate::parse(source);
  if (!made) throw std::runtime_error(made.error().detail);
  return std::move(*made);
}

Result<std::string> rendered(std::string_view source, std::vector<ChatMessage> messages = {{"user", "Hi"}}) {
  return parsed(source).render({.messages = std::move(messages), .bos_token = "<s>", .eos_token = "</s>"});
}

TEST(ChatTemplate, TheModelsOwnTemplateGivesTheGoldenTextAndIds) {
  const Result<GgufFile> file = GgufFile::open(SPILLWAY_MODEL);
  ASSERT_TRUE(file) << file.error().detail;
  const ChatTemplate own = parsed(file->get_string("tokenizer.chat_template").value());
  const nlohmann::json goldens = read_test_data("chat_template.json");
  ASSERT_EQ(goldens["cases"].size(), 6u);
  for (const auto& golden : goldens["cases"]) {
    for (const bool prompt : {false, true}) {
      const nlohmann::json& expected = golden[prompt ? "with_generation_prompt" : "without_generation_prompt"];
      const Result<std::string> text =
          own.render({.messages = messages_of(golden["messages"]), .add_generation_prompt = prompt});
      ASSERT_TRUE(text) << text.error().detail;
      EXPECT_EQ(*text, expected["text"].get<std::string>()) << golden["name"];
      EXPECT_EQ(demo_tokenizer().encode(*text, SpecialTokens::kParse).value(), expected["ids"].get<Ids>());
    }
  }
}

TEST(ChatTemplate, MutatedAndWrittenTemplatesRenderAsInJinja2) {
  const nlohmann::json data = read_test_data("template_mutations.json");
  ASSERT_GE(data["cases"].size(), 70u);
  for (const auto& entry : data["cases"]) {
    const Result<ChatTemplate> made = ChatTemplate::parse(entry["template"].get<std::string>());
    ASSERT_TRUE(made) << entry["name"] << ": " << made.error().detail;
    for (size_t index = 0; index < data["conversations"].size(); ++index) {
      for (const bool prompt : {false, true}) {
        const nlohmann::json& expected = entry["rendered"][index][prompt ? 1 : 0];
        const Result<std::string> text = made->render({.messages = messages_of(data["conversations"][index]),
                                                       .add_generation_prompt = prompt,
                                                       .bos_token = data["bos_token"],
                                                       .eos_token = data["eos_token"],
                                                       .now = test_time()});
        const std::string what = entry["name"].get<std::string>() + ": " + (text ? *text : text.error().detail);
        if (expected.contains("text")) {
          ASSERT_TRUE(text) << what;
          EXPECT_EQ(*text, expected["text"].get<std::string>()) << what;
          continue;
        }
        ASSERT_FALSE(text) << what;
        EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument) << what;
        if (expected.contains("raised")) {
          EXPECT_EQ(text.error().detail, expected["raised"].get<std::string>());
        } else {
          EXPECT_NE(text.error().detail.find("line 1, column "), std::string::npos) << what;
        }
      }
    }
  }
}

TEST(ChatTemplate, TheTemplatesOfModelsRenderAsInJinja2) {
  const nlohmann::json data = read_test_data("model_templates.json");
  ASSERT_GE(data["rendered"].size(), 14u);
  for (const auto& [name, rendered_ones] : data["rendered"].items()) {
    std::ifstream file(SPILLWAY_TEST_DATA "/templates/" + name + ".jinja");
    const std::string source{std::istreambuf_iterator<char>(file), {}};
    const ChatTemplate made = parsed(source);
    for (size_t index = 0; index < data["conversations"].size(); ++index) {
      for (const bool prompt : {false, true}) {
        const nlohmann::json& expected = rendered_ones[index][prompt ? 1 : 0];
        const Result<std::string> text = made.render({.messages = messages_of(data["conversations"][index]),
                                                      .add_generation_prompt = prompt,
                                                      .bos_token = data["bos_token"],
                                                      .eos_token = data["eos_token"],
                                                      .now = test_time()});
        const std::string what =
            fmt::format("{}, conversation {}: {}", name, index, text ? *text : text.error().detail);
        ASSERT_EQ(text.has_value(), expected.contains("text")) << what;
        if (text) {
          EXPECT_EQ(*text, expected["text"].get<std::string>()) << what;
        } else if (expected.contains("raised")) {
          EXPECT_EQ(text.error().detail, expected["raised"].get<std::string>()) << what;
        }
      }
    }
  }
}

TEST(ChatTemplate, ATimeFormatBeyondTheUsualIsUnsupported) {
  for (const std::string_view format : {"%c", "%", "a%-d", "%\xC3\xA9"}) {
    const auto text =
        parsed(fmt::format("{{{{ strftime_now('{}') }}}}", format)).render({.messages = {}, .now = test_time()});
    ASSERT_FALSE(text) << format;
    EXPECT_EQ(text.error().code, ErrorCode::kUnsupported) << text.error().detail;
  }
}

TEST(ChatTemplate, WithoutAClockThereIsNoTimeFunction) {
  EXPECT_EQ(rendered("{{ 'yes' if strftime_now is defined else 'no' }}").value(), "no");
  const Result<std::string> text = rendered("{{ strftime_now('%Y') }}");
  ASSERT_FALSE(text);
  EXPECT_NE(text.error().detail.find("\"strftime_now\" is undefined"), std::string::npos) << text.error().detail;
}

// A namespace can nest lists as deep as there are steps: what walks them must not recurse so.
TEST(ChatTemplate, ListsNestedByANamespaceAreWalkedToABound) {
  const std::string many = repeated("x", 30'000);
  const std::string nest =
      "{% set ns = namespace(a=[], b=[]) %}{% for c in messages[0].content %}{% set ns.a = [ns.a] %}"
      "{% set ns.b = [ns.b] %}{% endfor %}";
  for (const std::string use : {"{{ ns.a == ns.b }}", "{{ ns.a | tojson }}", "{{ ns.a in [ns.b] }}"}) {
    const Result<std::string> text = rendered(nest + use, {{"user", many}});
    ASSERT_FALSE(text) << use;
    EXPECT_NE(text.error().detail.find("nested more than 256 deep"), std::string::npos) << text.error().detail;
  }
}

TEST(ChatTemplate, AnUnsupportedConstructIsNamedWithItsPlace) {
  struct Case {
    std::string_view source, place, name;
  };
  const Case cases[] = {
      {"{% macro f() %}{% endmacro %}", "line 1, column 4", "\"macro\""},
      {"a\n b {% include 'x' %}", "line 2, column 7", "\"include\""},
      {"{% raw %}{{ }}{% endraw %}", "line 1, column 4", "\"raw\""},
      {"{% break %}", "line 1, column 4", "\"break\""},
      {"{% generation %}{% endgeneration %}", "line 1, column 4", "\"generation\""},
      {"{% set x %}a{% endset %}", "line 1, column 4", "set block"},
      {"{% set a, b = [1, 2] %}", "line 1, column 9", "tuple"},
      {"{% for (k, v) in messages %}{% endfor %}", "line 1, column 8", "tuple"},
      {"{% set ns.x, y = 1 %}", "line 1, column 12", "tuple"},
      {"{% for x in messages recursive %}{% endfor %}", "line 1, column 22", "recursive"},
      {"{{ namespace([1]) }}", "line 1, column 14", "namespace() without a name"},
      {"{{ range(3) }}", "line 1, column 4", "\"range\""},
      {"\n\n{{ x | xmlattr }}", "line 3, column 8", "filter \"xmlattr\""},
      {"{{ x is callable }}", "line 1, column 9", "test \"callable\""},
      {"{{ messages[0].keys() }}", "line 1, column 16", "method \"keys\""},
      {"{{ loop.cycle('a') }}", "line 1, column 9", "method \"cycle\""},
      {"{{ {'a': 1} }}", "line 1, column 4", "dictionary"},
      {"{{ (1, 2) }}", "line 1, column 6", "tuple"},
      {"{{ 1, 2 }}", "line 1, column 5", "tuple"},
      {"{% if a, b %}{% endif %}", "line 1, column 8", "tuple"},
      {"{{ 1.5 }}", "line 1, column 4", "integer"},
      {"{{ 0x10 }}", "line 1, column 4", "integer"},
      {"{{ 99999999999999999999 }}", "line 1, column 4", "64 bits"},
      {"{{ 1 / 2 }}", "line 1, column 6", "\"/\""},
      {"{{ 2 ** 2 }}", "line 1, column 6", "\"**\""},
      {"{{ '\\N{BULLET}' }}", "line 1, column 4", "\\N"},
      {"{{ x | trim('a', 'b') }}", "line 1, column 18", "argument 2 of \"trim\""},
      {"{{ x | join(attribute='a') }}", "line 1, column 13", "\"attribute\""},
      {"{{ \xC3\xA9 }}", "line 1, column 4", "\xC3\xA9"},
      {"{{ f(1)(2) }}", "line 1, column 4", "\"f\""},
      {"{{ x.strip()() }}", "line 1, column 13", "call"},
  };
  for (const Case& c : cases) {
    const Result<ChatTemplate> made = ChatTemplate::parse(c.source);
    ASSERT_FALSE(made) << c.source;
    EXPECT_EQ(made.error().code, ErrorCode::kUnsupported) << made.error().detail;
    EXPECT_NE(made.error().detail.find(c.place), std::string::npos) << c.source << ": " << made.error().detail;
    EXPECT_NE(made.error().detail.find(c.name), std::string::npos) << c.source << ": " << made.error().detail;
    EXPECT_NE(made.error().detail.find("is not supported"), std::string::npos) << made.error().detail;
  }
}

TEST(ChatTemplate, WhatShowsOnlyWhenRenderingIsUnsupportedWithItsPlaceToo) {
  for (const std::string_view source :
       {"\n {{ messages }}", "\n {{ messages[0] }}", "\n {{ '\xC3\xA9' | upper }}", "\n {{ messages[0].items }}",
        "\n {{ 'x'.upper }}", "\n {{ 'a' * 3 }}", "\n {{ '%s' % 1 }}", "\n {{ [1] < [2] }}", "\n {{ namespace() }}",
        "\n {{ 'a' | tojson(ensure_ascii=true) }}", "\n {{ 'a' | tojson(indent='x') }}",
        "\n {{ messages | selectattr('a.b') | list }}", "\n {{ messages | select('callable') | list }}",
        "\n {{ 9223372036854775807 + 1 }}", "\n {{ 9223372036854775807 * 2 }}"}) {
    const Result<std::string> text = rendered(source);
    ASSERT_FALSE(text) << source;
    EXPECT_EQ(text.error().code, ErrorCode::kUnsupported) << source << text.error().detail;
    EXPECT_NE(text.error().detail.find("line 2, column"), std::string::npos) << text.error().detail;
  }
}

TEST(ChatTemplate, BrokenSyntaxIsAnErrorWithItsPlace) {
  struct Case {
    std::string_view source, place;
  };
  const Case cases[] = {{"{{", "line 1, column 1"},
                        {"a {{ x", "line 1, column 3"},
                        {"{% if x", "line 1, column 1"},
                        {"\n{# x", "line 2, column 1"},
                        {"{{ 'x }}", "line 1, column 4"},
                        {"{{ 'x\\", "line 1, column 4"},
                        {"{{ }}", "line 1, column 4"},
                        {"{{ a b }}", "line 1, column 6"},
                        {"{{ (1 }}", "line 1, column 7"},
                        {"{{ [1 }}", "line 1, column 7"},
                        {"{{ 1) }}", "line 1, column 5"},
                        {"{{ [1) ] }}", "line 1, column 6"},
                        {"{{ a. }}", "line 1, column 7"},
                        {"{{ a[ ] }}", "line 1, column 7"},
                        {"{{ a[1:2:3:4] }}", "column 11"},
                        {"{{ a | }}", "line 1, column 8"},
                        {"{{ 1 + }}", "line 1, column 8"},
                        {"{{ not }}", "line 1, column 8"},
                        {"{{ $ }}", "line 1, column 4"},
                        {"{{ 007 }}", "line 1, column 4"},
                        {"{{ 1_ }}", "line 1, column 4"},
                        {"{% %}", "line 1, column 4"},
                        {"{% if %}", "line 1, column 7"},
                        {"{% if x %}", "line 1, column 11"},
                        {"{% endif %}", "line 1, column 4"},
                        {"{% else %}", "line 1, column 4"},
                        {"{% for x %}", "line 1, column 10"},
                        {"{% if x %}{% endfor %}", "14"},
                        {"{% for %}", "line 1, column 8"},
                        {"{% for true in x %}", "column 8"},
                        {"{% for loop in x %}", "column 8"},
                        {"{% set = 1 %}", "column 8"},
                        {"{% set x = %}", "column 12"},
                        {"{% set x == 1 %}", "column 10"},
                        {"{% if x if y else z %}", "column 9"},
                        {"{{ x is }}", "column 9"},
                        {"{{ 'a'.startswith() }}", "8"},
                        {"{{ x is divisibleby }}", "9"},
                        {"{{ raise_exception() }}", "4"},
                        {"{{ x | default('a', default_value='b') }}", "column 21"},
                        {"{% if x %}{% else %}{% else %}{% endif %}", "column 24"},
                        {"{{ '\\xZZ' }}", "column 4"},
                        {"{{ '\\ud800' }}", "column 4"},
                        {"{{ '\\U00110000' }}", "column 4"}};
  for (const Case& c : cases) {
    const Result<ChatTemplate> made = ChatTemplate::parse(c.source);
    ASSERT_FALSE(made) << c.source;
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument) << made.error().detail;
    EXPECT_NE(made.error().detail.find(c.place), std::string::npos) << c.source << ": " << made.error().detail;
  }
}

TEST(ChatTemplate, RaisedTextIsTheErrorAlone) {
  const Result<std::string> text = rendered("{{ raise_exception('No ' ~ messages[0].role ~ ' here') }}");
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(text.error().detail, "No user here");
}

TEST(ChatTemplate, MarkupInMessagesIsTextAndInvalidUtf8IsRefused) {
  const Result<std::string> text = rendered("{{ messages[0].content }}", {{"user", "{{ 1 }}{% if x %}<|im_end|>"}});
  EXPECT_EQ(text.value(), "{{ 1 }}{% if x %}<|im_end|>");
  for (const ChatMessage& message : {ChatMessage{"user", "\xFF"}, ChatMessage{"\xC3", "x"}}) {
    const Result<std::string> refused = rendered("x", {{"user", "fine"}, message});
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().detail.find("message 1"), std::string::npos) << refused.error().detail;
  }
  EXPECT_FALSE(ChatTemplate::parse("\xFF"));
}

TEST(ChatTemplate, NestingIsBoundedHoweverItIsWritten) {
  const std::string sources[] = {"{{ " + repeated("(", 10'000) + "1" + repeated(")", 10'000) + " }}",
                                 "{{ " + repeated("[", 10'000) + "1" + repeated("]", 10'000) + " }}",
                                 "{{ " + repeated("not ", 10'000) + "1 }}",
                                 "{{ " + repeated("-", 10'000) + "1 }}",
                                 "{{ 1" + repeated(" + 1", 10'000) + " }}",
                                 "{{ x" + repeated(".x", 10'000) + " }}",
                                 "{{ x" + repeated("[0]", 10'000) + " }}",
                                 "{{ x" + repeated("[x", 10'000) + " }}",
                                 "{{ x" + repeated("|trim", 10'000) + " }}",
                                 "{{ x" + repeated("|d(x", 10'000) + " }}",
                                 "{{ 1" + repeated(" if 1 else 1", 4'000) + " }}",
                                 "{{ 1" + repeated(" if 1", 4'000) + " }}",
                                 repeated("{% if 1 %}", 6'000),
                                 repeated("{% for x in y %}", 4'000),
                                 repeated("{% for x in y %}", 1'000) + repeated("{% endfor %}", 1'000)};
  for (const std::string& source : sources) {
    const Result<ChatTemplate> made = ChatTemplate::parse(source);
    ASSERT_FALSE(made) << source.substr(0, 40);
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument) << made.error().detail;
  }
  // What is long but not deep is no problem.
  EXPECT_EQ(rendered("{{ ''" + repeated(" ~ 'a'", 5'000) + " }}").value(), repeated("a", 5'000));
  EXPECT_EQ(rendered(repeated("{% if 1 %}a{% endif %}", 2'000)).value(), repeated("a", 2'000));
}

TEST(ChatTemplate, SourceWorkMemoryAndOutputAreBounded) {
  EXPECT_FALSE(ChatTemplate::parse(std::string(65'537, 'a')));
  EXPECT_TRUE(ChatTemplate::parse(std::string(65'536, 'a')));
  const std::string digits = "[0,1,2,3,4,5,6,7,8,9]", big = std::string(1 << 20, 'a');
  std::string loops, doubling = "{% set x = 'ab' %}";
  for (const char name : std::string("abcdefgh")) loops += std::string("{% for ") + name + " in " + digits + " %}";
  for (int count = 0; count < 40; ++count) doubling += "{% set x = x ~ x %}";
  const std::string list_doubling = "{% set x = [1] %}" + repeated("{% set x = x + x %}", 40);
  const std::string shared_lists =
      "{% set x = [1] %}{% set y = [1] %}" + repeated("{% set x = [x, x] %}{% set y = [y, y] %}", 60) + "{{ x == y }}";
  const std::string each = "{% for a in " + digits + " %}{% for b in " + digits + " %}{% for c in " + digits + " %}";
  const std::string ends = repeated("{% endfor %}", 3);
  const std::string sources[] = {loops + "x" + repeated("{% endfor %}", 8),
                                 doubling + "{{ x | length }}",
                                 list_doubling + "{{ x | length }}",
                                 "{% set x = messages[0].content %}{{ x" + repeated("~x", 20'000) + " }}",
                                 shared_lists,
                                 each + "{{ messages[0].content }}" + ends,
                                 each + "{% set n = messages[0].content.split('a') | length %}" + ends,
                                 each + "{% set n = messages[0].content[::-1] %}" + ends,
                                 each + "{% set n = messages[0].content in messages[1].content %}" + ends,
                                 each + "{% set n = messages[0].content.strip(messages[1].content) %}" + ends,
                                 each + "{% for x in messages[0].content %}{% endfor %}" + ends};
  for (const std::string& source : sources) {
    const double begin = cpu_seconds();
    const Result<std::string> text = rendered(source, {{"user", big}, {"user", big + "b"}});
    EXPECT_LT(cpu_seconds() - begin, 20.0);
    ASSERT_FALSE(text) << source.substr(0, 200);
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(text.error().detail.find("more than") != std::string::npos) << text.error().detail;
  }
}

TEST(ChatTemplate, ModuloKeepsPythonsSignAtTheEdgeOf64Bits) {
  const auto of = [](const std::string& expression) {
    return rendered("{{ " + expression + " }}", {{"user", "u"}}).value();
  };
  EXPECT_EQ(of("5000000000000000000 % 6000000000000000000"), "5000000000000000000");
  EXPECT_EQ(of("-5000000000000000000 % 6000000000000000000"), "1000000000000000000");
  EXPECT_EQ(of("7 % -3"), "-2");
  EXPECT_EQ(of("(-9223372036854775807 - 1) % -1"), "0");
  EXPECT_EQ(of("(-9223372036854775807 - 1) is divisibleby(-1)"), "True");
  EXPECT_EQ(of("-7 % 3"), "2");
}

TEST(ChatTemplate, AMegabyteMessageRenders) {
  const std::string big(size_t{4} << 20, 'x');
  const nlohmann::json goldens = read_test_data("chat_template.json");
  const Result<std::string> text = rendered(goldens["template"].get<std::string>(), {{"user", big}});
  ASSERT_TRUE(text) << text.error().detail;
  EXPECT_NE(text->find(big), std::string::npos);
}

TEST(ChatTemplate, DamagedTemplatesNeverCrash) {
  const nlohmann::json data = read_test_data("template_mutations.json");
  const std::string_view alphabet = "{}%#-+'\"()[]|.,:=~ \nax1";
  uint32_t state = 1, accepted = 0, refused = 0;
  const auto draw = [&](size_t below) { return (state = state * 1664525 + 1013904223) / 7 % below; };
  for (int round = 0; round < 30; ++round) {
    for (const auto& entry : data["cases"]) {
      auto source = entry["template"].get<std::string>();
      if (source.empty()) continue;
      for (size_t count = 1 + draw(3); count > 0; --count)
        source[draw(source.size())] = alphabet[draw(alphabet.size())];
      const Result<ChatTemplate> made = ChatTemplate::parse(source);
      (made ? accepted : refused) += 1;
      if (made) static_cast<void>(made->render({.messages = messages_of(data["conversations"][1])}));
    }
  }
  EXPECT_GT(accepted, 100u);
  EXPECT_GT(refused, 100u);
}

}  // namespace
}  // namespace spillway

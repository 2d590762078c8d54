// docs/observability.md lists every metric: names, types, units and labels are an interface, dashboards stand on them.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "tests/gateway/ask.h"
#include "tests/gateway/loop_scripts.h"

namespace spillway {
namespace {

struct Family {
  std::string type, help;
  std::set<std::string> labels;  // but model_name, which all have, and le
  bool operator==(const Family&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Family& family) {
  out << family.type << " {";
  for (const std::string& label : family.labels) out << label << ' ';
  return out << "} " << family.help;
}
using Families = std::map<std::string, Family>;

std::vector<std::string> cells_of(const std::string& row) {
  std::vector<std::string> cells;
  std::istringstream text(row.substr(1));
  for (std::string cell; std::getline(text, cell, '|');) {
    cell.erase(0, cell.find_first_not_of(" `"));
    cell.erase(cell.find_last_not_of(" `") + 1);
    cells.push_back(cell);
  }
  return cells;
}

// The table's rows; a unit that the name does not say is a failure.
Families documented() {
  Families families;
  std::ifstream file(SPILLWAY_OBSERVABILITY_DOCUMENT);
  for (std::string row; std::getline(file, row);) {
    if (!row.starts_with("| `spillway_")) continue;
    const std::vector<std::string> cells = cells_of(row);
    EXPECT_EQ(cells.size(), 5u) << row;
    if (cells.size() != 5) continue;
    const std::string& name = cells[0];
    const std::string& unit = cells[2];
    const bool counts = name.ends_with("_total");
    EXPECT_EQ(counts, cells[1] == "counter") << row;
    const std::string base = counts ? name.substr(0, name.size() - 6) : name;
    for (const std::string named : {"seconds", "bytes", "tokens"})
      EXPECT_EQ(base.ends_with("_" + named), unit == named) << row;
    Family& family = families[name];
    EXPECT_TRUE(family.type.empty()) << "twice: " << name;
    family.type = cells[1];
    family.help = cells[4];
    std::istringstream labels(cells[3]);
    for (std::string label; std::getline(labels, label, ',');)
      family.labels.insert(label.substr(label.find_first_not_of(" `"),
                                        label.find_last_not_of(" `") - label.find_first_not_of(" `") + 1));
  }
  return families;
}

// The first word of `text`, which loses it and what ends it.
std::string take_word(std::string& text) {
  const size_t end = std::min(text.find_first_of(" {"), text.size());
  std::string word = text.substr(0, end);
  text.erase(0, std::min(end + 1, text.size()));
  return word;
}

void add_labels(const std::string& sample, std::set<std::string>& labels) {
  for (size_t at = 0, equals = 0; (equals = sample.find("=\"", at)) != std::string::npos;) {
    const std::string label = sample.substr(at, equals - at);
    if (label != "model_name" && label != "le") labels.insert(label);
    at = sample.find('"', equals + 2) + 2;
  }
}

Families exported(const std::string& page) {
  Families families;
  std::istringstream text(page);
  for (std::string line; std::getline(text, line);) {
    const bool is_help = line.starts_with("# HELP "), is_type = line.starts_with("# TYPE ");
    if (is_help || is_type) line.erase(0, 7);
    const std::string word = take_word(line);
    if (is_help || is_type) {
      (is_help ? families[word].help : families[word].type) = line;
      continue;
    }
    std::string name = word;
    for (const std::string_view part : {"_bucket", "_sum", "_count"})
      if (!families.contains(name) && word.ends_with(part)) name = word.substr(0, word.size() - part.size());
    EXPECT_TRUE(families.contains(name)) << word;
    EXPECT_NE(line.find("model_name=\"bytes\""), std::string::npos) << word << line;
    add_labels(line, families[name].labels);
  }
  return families;
}

TEST(MetricsDocument, EveryReasonIsThereBeforeItsFirstError) {
  FakeLoop loop(says("x"));
  GatewayStatus status;
  status.counters.errors[ErrorCode::kPeerLost] = 2;
  status.counters.queue_waits.add(std::chrono::seconds(100));
  loop.server->publish(status);
  const std::string page = fetch(loop, "/metrics").body;
  for (uint8_t code = 0; code <= static_cast<uint8_t>(ErrorCode::kInternal); ++code) {
    const auto name = std::string(error_name(static_cast<ErrorCode>(code)));
    const std::string count = static_cast<ErrorCode>(code) == ErrorCode::kPeerLost ? "2" : "0";
    EXPECT_NE(page.find("spillway_request_errors_total{reason=\"" + name + "\",model_name=\"bytes\"} " + count + "\n"),
              std::string::npos)
        << name;
  }
  for (const std::string bucket : {"60\"} 0", "120\"} 1", "300\"} 1", "+Inf\"} 1"})
    EXPECT_NE(page.find("spillway_request_queue_seconds_bucket{model_name=\"bytes\",le=\"" + bucket + "\n"),
              std::string::npos)
        << bucket;
}

TEST(MetricsDocument, ListsExactlyWhatIsExported) {
  FakeLoop loop(says("xyz"));
  GatewayStatus status;
  status.health = {};
  status.counters.errors[ErrorCode::kPeerLost] = 2;
  loop.server->publish(status);
  ASSERT_EQ(ask(loop, "/v1/completions", R"({"prompt":"a","max_tokens":3})").status, 200u);
  const Families written = documented(), served = exported(fetch(loop, "/metrics").body);
  for (const auto& [name, family] : served) {
    ASSERT_TRUE(written.contains(name)) << "docs/observability.md lacks " << name << ' ' << family;
    EXPECT_EQ(written.at(name), family) << name;
  }
  for (const auto& [name, family] : written) EXPECT_TRUE(served.contains(name)) << name << " is not exported";
}

}  // namespace
}  // namespace spillway

// docs/observability.md lists every metric: names, types, units and labels are an interface, dashboards stand on them.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
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

Families exported(const std::string& page) {
  Families families;
  std::istringstream text(page);
  for (std::string line; std::getline(text, line);) {
    std::smatch match;
    if (std::regex_match(line, match, std::regex("# HELP (\\w+) (.*)"))) {
      families[match[1]].help = match[2];
    } else if (std::regex_match(line, match, std::regex("# TYPE (\\w+) (\\w+)"))) {
      families[match[1]].type = match[2];
    } else if (std::regex_match(line, match, std::regex("(\\w+)\\{(.*)\\} [-+.e0-9]+"))) {
      std::string name = match[1];
      if (!families.contains(name)) name = std::regex_replace(name, std::regex("_(bucket|sum|count)$"), "");
      const std::string labels = match[2];
      EXPECT_NE(labels.find("model_name=\"bytes\""), std::string::npos) << line;
      const std::regex one("(\\w+)=\"");
      for (std::sregex_iterator at(labels.begin(), labels.end(), one), end; at != end; ++at)
        if ((*at)[1] != "model_name" && (*at)[1] != "le") families.at(name).labels.insert((*at)[1]);
    } else {
      ADD_FAILURE() << "no metric: " << line;
    }
  }
  return families;
}

TEST(MetricsDocument, ListsExactlyWhatIsExported) {
  FakeLoop loop(says("xyz"));
  GatewayStatus status;
  status.ready = {};
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

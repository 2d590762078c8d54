#include "cli/configuration.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <string_view>

#include "cli/config_file.h"
#include "cli/nearest.h"
#include "common/check.h"
#include "common/quote.h"

namespace spillway {
namespace {

constexpr char kDefault[] = "default";
constexpr char kFlag[] = "flag";
constexpr char kConfigVariable[] = "SPILLWAY_CONFIG";

bool is_list(const CLI::Option& option) { return option.get_items_expected_max() > 1; }
bool is_switch(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

std::vector<std::string> values_of(const CLI::Option& option) {
  if (option.count() > 0 && is_switch(option)) return {option.as<bool>() ? "true" : "false"};
  if (option.count() > 0) return option.results();
  if (is_switch(option)) return {"false"};
  if (is_list(option)) return {};
  return {option.get_default_str()};
}

}  // namespace

Environment our_environment(const char* const* entries) {
  Environment ours;
  for (; *entries != nullptr; ++entries) {
    const std::string_view entry = *entries;
    const size_t equals = entry.find('=');
    if (!entry.starts_with(kEnvironmentPrefix) || equals == std::string_view::npos) continue;
    if (equals + 1 < entry.size()) ours.emplace(entry.substr(0, equals), entry.substr(equals + 1));
  }
  return ours;
}

std::string variable_of(const std::string& flag) {
  std::string name = kEnvironmentPrefix;
  for (const char c : flag) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::vector<CLI::Option*> settings_of(CLI::App& command) {
  return command.get_options(
      [](const CLI::Option* option) { return option->get_configurable() && !option->get_lnames().empty(); });
}

std::string flag_of(const CLI::Option& option) { return option.get_lnames().front(); }

Configuration::Configuration(CLI::App& command, const Environment& environment, const std::string& config_path)
    : command_(command) {
  for (const CLI::Option* option : settings_of(command_))
    origins_[flag_of(*option)] = option->count() > 0 ? kFlag : kDefault;
  take_environment(environment);
  const auto variable = environment.find(kConfigVariable);
  const std::string path = config_path.empty() && variable != environment.end() ? variable->second : config_path;
  if (!path.empty()) take_file(path);
}

CLI::Option& Configuration::option(const std::string& flag) const {
  CLI::Option* const found = command_.get_option_no_throw("--" + flag);
  CHECK(found != nullptr);
  return *found;
}

bool Configuration::given(const std::string& flag) const { return origin(flag) != kDefault; }

const std::string& Configuration::origin(const std::string& flag) const { return origins_.at(flag); }

void Configuration::choose(const std::string& flag, const std::string& value, const std::string& origin) {
  CHECK(!given(flag));
  take(option(flag), {value}, origin, origin);
}

void Configuration::take(CLI::Option& option, const std::vector<std::string>& values, const std::string& origin,
                         const std::string& where) {
  if (values.empty() || (values.size() == 1 && values.front().empty())) return;
  const auto refuse = [&](const std::string& what) { return CLI::ConversionError(where + ": " + what); };
  if (!is_list(option) && values.size() > 1) throw refuse("takes one value, not a list");
  if (is_switch(option) && values.front() != "true" && values.front() != "false")
    throw refuse("takes true or false, not " + quote_foreign(values.front()));
  try {
    option.add_result(values);
    option.run_callback();
  } catch (const CLI::ParseError& error) {
    throw refuse(error.what());
  }
  origins_[flag_of(option)] = origin;
}

void Configuration::take_environment(const Environment& environment) {
  for (CLI::Option* const option : settings_of(command_)) {
    const std::string variable = variable_of(flag_of(*option));
    const auto found = environment.find(variable);
    if (found == environment.end() || given(flag_of(*option))) continue;
    take(*option, is_list(*option) ? split_at_commas(found->second) : std::vector{found->second}, variable, variable);
  }
}

void Configuration::take_file(const std::string& path) {
  for (const ConfigEntry& entry : read_config_file(path)) {
    const std::string where = fmt::format("--config {}, line {}: ", path, entry.line);
    if (!origins_.contains(entry.key)) {
      std::vector<std::string> names;
      for (const auto& [flag, origin] : origins_) names.push_back(flag);
      throw CLI::ConversionError(fmt::format("{}{} is no flag of {}{}", where, quote_foreign(entry.key),
                                             command_.get_name(), did_you_mean(entry.key, names)));
    }
    if (!given(entry.key)) take(option(entry.key), entry.values, "--config " + path, where + entry.key);
  }
}

std::string Configuration::yaml() const {
  YAML::Emitter out;
  out << YAML::Comment("spillway " + command_.get_name() + ", as --config takes it");
  out << YAML::BeginMap;
  for (const CLI::Option* option : settings_of(command_)) {
    const std::string flag = flag_of(*option);
    const std::vector<std::string> values = values_of(*option);
    out << YAML::Key << flag << YAML::Value;
    if (is_list(*option))
      out << YAML::Flow << values;
    else
      out << values.front();
    const bool missing = option->get_required() && !given(flag);
    out << YAML::Comment(missing ? "required" : origin(flag));
  }
  out << YAML::EndMap;
  return std::string(out.c_str()) + '\n';
}

std::vector<std::string> unknown_variables(CLI::App& app, const Environment& environment) {
  std::vector<std::string> known{kConfigVariable};
  for (CLI::App* const command : app.get_subcommands([](CLI::App*) { return true; }))
    for (const CLI::Option* option : settings_of(*command)) known.push_back(variable_of(flag_of(*option)));
  std::vector<std::string> warnings;
  for (const auto& [name, value] : environment)
    if (std::ranges::find(known, name) == known.end())
      warnings.push_back(fmt::format("{} is no flag of any subcommand and is ignored{}", quote_foreign(name),
                                     did_you_mean(name, known)));
  return warnings;
}

}  // namespace spillway

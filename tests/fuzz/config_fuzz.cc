#include <CLI/CLI.hpp>
#include <sstream>
#include <string>

#include "cli/flags.h"
#include "common/check.h"
#include "tests/fuzz/fuzz_input.h"

namespace spillway {
namespace {

// The items of the file as text, or what is wrong with it. Only CLI11's errors leave: main prints those and exits.
std::string read(std::string_view yaml) {
  CLI::App app;
  app.add_subcommand("serve");
  std::istringstream input{std::string(yaml)};
  std::string out;
  try {
    for (const CLI::ConfigItem& item : YamlConfig(app).from_config(input)) {
      out += item.fullname();
      for (const std::string& value : item.inputs) out += '=' + value;
      out += '\n';
    }
  } catch (const CLI::Error& error) {
    out = error.what();
    CHECK(out.starts_with("--config: "));
  }
  return out;
}

}  // namespace
}  // namespace spillway

// The bytes of a --config file: a list of flags, or one error that says that it is about --config; always the same.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto yaml = spillway::input_text(data, size);
  CHECK(spillway::read(yaml) == spillway::read(yaml));
  return 0;
}

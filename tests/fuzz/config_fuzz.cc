#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>

#include "cli/config_file.h"
#include "common/check.h"
#include "common/unique_fd.h"
#include "tests/fuzz/fuzz_input.h"

namespace spillway {
namespace {

// The items of the file as text, or what is wrong with it. Only CLI11's errors leave: main prints those and exits.
std::string read(std::string_view yaml) {
  const UniqueFd file(::memfd_create("config", MFD_CLOEXEC));
  CHECK(file && ::write(file.get(), yaml.data(), yaml.size()) == static_cast<ssize_t>(yaml.size()));
  std::string out;
  try {
    for (const ConfigEntry& entry : read_config_file("/proc/self/fd/" + std::to_string(file.get()))) {
      out += entry.key;
      for (const std::string& value : entry.values) out += '=' + value;
      out += '\n';
    }
  } catch (const CLI::Error& error) {
    out = error.what();
    CHECK(out.starts_with("--config /proc/"));
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

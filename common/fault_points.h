#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spillway {

// Named places where a test may kill this process (`--fault NAME[:N]`: SIGKILL at the Nth pass) or halt it there until
// SIGCONT (`--fault NAME[:N]:stop`), or, at those named NODE-nan, spoil one result (`--fault NAME[:N]`: the Nth). Off
// unless armed.
// Loop thread of one process; the names are one list, so that a typo is an error at start-up.
class FaultPoints {
 public:
  static std::span<const std::string_view> names();
  // Throws SetupError naming the known points when `spec` names none of them.
  explicit FaultPoints(std::span<const std::string> specs);
  // Marks a pass. REQUIRES: `name` is in names(), not a -nan. Does not return when this is the pass armed to kill.
  void pass(std::string_view name);
  // Marks a pass of a -nan point; true: spoil it.
  bool spoils(std::string_view name);

 private:
  struct Armed {
    std::string_view name;
    uint64_t passes_left;
    int signal;
  };
  std::vector<Armed> armed_;
};

}  // namespace spillway

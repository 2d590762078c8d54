#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spillway {

// Named places where a test may kill this process (`--fault NAME[:N]`: SIGKILL at the Nth pass), halt it there until
// SIGCONT (`--fault NAME[:N]:stop`), hold only the passing thread until SIGCONT (`--fault NAME[:N]:wedge`), or, at
// those named NODE-nan, spoil one result (`--fault NAME[:N]`: the Nth). Off unless armed. The names are one list, so
// that a typo is an error at start-up; each is passed by one thread only. Made before other threads are, for a wedge
// blocks SIGCONT in all of them.
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
  enum class Action : uint8_t { kKill, kStop, kWedge };
  struct Armed {
    std::string_view name;
    uint64_t passes_left;
    Action action;
  };
  static void act(Action action);

  std::vector<Armed> armed_;
};

}  // namespace spillway

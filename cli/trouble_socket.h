#pragma once

#include <string>
#include <vector>

#include "common/unique_fd.h"

namespace spillway {

// What the supervisor knows of its children and the gateway cannot see: one datagram through a socket in the run
// folder, the whole state each time, one line a trouble; an empty one: none. Neither end ever waits for the other.

// Says so, if anybody listens at `path`.
void tell_trouble(const std::string& path, const std::string& lines);

// The gateway's end. Loop thread.
class TroubleSocket {
 public:
  explicit TroubleSocket(const std::string& path);  // empty: nobody will say anything. Throws SetupError.
  const std::vector<std::string>& lines();          // as last told

 private:
  UniqueFd fd_;
  std::vector<std::string> lines_;
};

}  // namespace spillway

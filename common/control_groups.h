#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace spillway {

// The folders of the control groups that bound this process (cgroups(7)): those of the unified hierarchy (v2), and
// those of the hierarchy that has the asked-for controller (v1); a machine may have either or both. A group that the
// mount does not show, as in a container, is the mount itself, so that is always among them; some may not exist.
struct ControlGroups {
  std::vector<std::filesystem::path> v2, v1;  // from the mount down to the process's own group
};
// `controller`: "cpu", "memory". `root` is where /proc and /sys are found.
ControlGroups control_groups(const std::filesystem::path& root, std::string_view controller);

}  // namespace spillway

#include "common/control_groups.h"

#include <fstream>
#include <sstream>
#include <string>

namespace spillway {
namespace {

void add_folders(std::filesystem::path folder, const std::string& group, std::vector<std::filesystem::path>& folders) {
  folders.push_back(folder);
  for (const std::filesystem::path& name : std::filesystem::path(group).relative_path())
    folders.push_back(folder /= name);
}

// "cpu" is among "cpu,cpuacct", but not among "cpuset".
bool names(const std::string& controllers, std::string_view wanted) {
  std::istringstream list(controllers);
  for (std::string one; std::getline(list, one, ',');)
    if (one == wanted) return true;
  return false;
}

}  // namespace

ControlGroups control_groups(const std::filesystem::path& root, std::string_view controller) {
  ControlGroups groups;
  const std::filesystem::path mounts = root / "sys/fs/cgroup";
  std::ifstream file(root / "proc/self/cgroup");  // lines "id:controllers:path"; v2 has no controllers
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    if (controllers.empty()) add_folders(mounts, group, groups.v2);
    if (!names(controllers, controller)) continue;
    add_folders(mounts / controller, group, groups.v1);
    // Usually the same folder by its other name.
    if (controllers != controller) add_folders(mounts / controllers, group, groups.v1);
  }
  return groups;
}

}  // namespace spillway

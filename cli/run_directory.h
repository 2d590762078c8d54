#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "common/unique_fd.h"

namespace spillway {

// The folder of one run's sockets, readable by this user only, in the user's runtime folder or, where that cannot be
// used, in /tmp; removed with this object. It holds a lock on a file in there, so that the next run knows which folders
// nobody lives in any more: those it removes. Throws SetupError when it cannot be made.
class RunDirectory {
 public:
  RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;
  ~RunDirectory();
  const std::string& path() const { return path_; }
  std::string status_socket() const { return path_ + "/status.sock"; }
  std::string gateway_endpoint() const { return "ipc://" + path_ + "/gateway.sock"; }

 private:
  std::string path_;
  UniqueFd lock_;
};

// Where the gateway of a run with these options accepts its nodes.
std::string gateway_endpoint(const Options& options, const RunDirectory& run);
// Folders of this user's runs that ended without removing them (kill -9, a crash): nobody holds their lock.
std::vector<std::string> orphaned_run_folders();
// Removes them, sockets and lock and nothing else; gives those that are gone now.
std::vector<std::string> remove_orphaned_run_folders();

// Arguments of `spillway prefill` or `spillway decode` (role) for node `index` of a run with these options.
std::vector<std::string> node_arguments(const Options& options, std::string_view role, uint32_t index,
                                        const RunDirectory& run);

}  // namespace spillway

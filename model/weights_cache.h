#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/result.h"
#include "model/packed_weights.h"

namespace spillway {

struct WeightsCacheConfig {
  std::string folder;                             // empty: nothing on disk, every call packs
  uint64_t bytes_max = uint64_t{64} << 30;        // of all its files together
  Duration stall_max = std::chrono::seconds(60);  // another process that packs and gets no further is not waited for
};

// The packed weights of `file`, all digests checked or made by this process: out of the cache folder, packed into it
// first where they are missing or damaged, or packed in memory where the folder cannot be used, with one warning that
// says why. Never a damaged file, and no failure for the folder's sake. Throws SetupError: memory does not suffice, or
// what load_weights() says of the model. Any number of processes may call at once: one packs, the others wait for it.
PackedWeights find_or_pack_weights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                                   const WeightsCacheConfig& cache);

// What stands in a cache folder. A name there is PackedKey::file_name(). A file is written aside, under a lock, and
// renamed; it is removed by unlink, never cut, so whoever maps it keeps it. Last use: its access time, set by each
// user.
class WeightsFolder {
 public:
  explicit WeightsFolder(std::string path) : path_(std::move(path)) {}

  struct File {
    std::string path;
    PackedFileName name;
    uint64_t bytes = 0;  // on disk
    int64_t last_use_ns = 0;
  };
  // Ours, of this user, the one that was not used for longest first.
  std::vector<File> files() const;
  // Removes what nobody will ask for again (of older layouts and packings, and of what the model file was before) and
  // what was not used for longest, but nothing in use, until `needed` more bytes stay below `bytes_max`. kNoSpace with
  // the numbers.
  Result<void> make_room(const PackedKey& writing, uint64_t needed, uint64_t bytes_max) const;
  // With its digests checked. kInvalidArgument: not there; kUnavailable: not readable; kCorrupt: damaged.
  Result<PackedWeights> open(const PackedKey& key) const;
  // What killed writers left of it; the next writer removes it.
  std::vector<std::string> leftovers(const PackedKey& key) const;
  std::string path_of(const PackedKey& key) const { return path_ + "/" + key.file_name(); }

 private:
  const std::string path_;
};

}  // namespace spillway

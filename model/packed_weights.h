#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "formats/gguf.h"
#include "kernels/backend.h"
#include "model/packed_file.h"

namespace spillway {

// A model's packed matrices (model/packed_file.h), mapped read-only: all processes that map the same file hold one
// copy. Moves only. As long as it or a copy of its descriptor lives, a shared flock(2) says that the file is in use.
class PackedWeights {
 public:
  PackedWeights() = default;  // none
  // Maps what `file` holds; it becomes this object's. `name` is for the errors. kCorrupt: it cannot be mapped,
  // read_header() refuses it, or it is of another model file or packing than `key`. Digests are not read: see intact().
  static Result<PackedWeights> map(UniqueFd file, const std::string& name, const PackedKey& key);
  // Reads all of it and compares digests. kCorrupt names the first matrix that is damaged.
  Result<void> intact() const;

  std::vector<PackedMatrix> matrices() const;  // for load_weights(); they live as long as this
  const FileDigest& model_digest() const { return header_.model_digest; }
  int fd() const { return file_.get(); }
  // The descriptor alone: what a process keeps that hands it on and computes nothing.
  UniqueFd unmap() &&;

 private:
  PackedWeights(UniqueFd file, MappedFile mapping, PackedHeader header)
      : file_(std::move(file)), mapping_(std::move(mapping)), header_(std::move(header)) {}
  UniqueFd file_;
  MappedFile mapping_;
  PackedHeader header_;
};

// Packs one model into a file, in one of many places. Used once, by the thread that owns the backend.
class WeightPacker {
 public:
  // Throws SetupError where load_weights() would fail or throw. All must outlive this.
  WeightPacker(const GgufFile& file, const ModelConfig& config, Backend& backend);
  // Nothing where the model is no file, so that no other process can ask for it.
  const std::optional<PackedKey>& key() const { return key_; }
  size_t bytes() const { return header_.file_bytes(); }

  // Writes to `file`, which has bytes() zeroed bytes with room for them behind. All threads of the backend pack, one
  // hashes the model file; of that, no more than one matrix and a few MiB are in this process's memory at once. What
  // takes longer than a second is logged each second, as going into `name`.
  Result<void> pack(int file, const std::string& name);
  // Into sealed shared memory without a name. Throws SetupError: not enough of it.
  PackedWeights pack_in_memory();

 private:
  void pack_jobs_into(std::span<std::byte> memory, const std::string& name);

  const GgufFile& file_;
  Backend& backend_;
  const std::vector<PackJob> jobs_;
  const std::optional<PackedKey> key_;
  PackedHeader header_;
};

}  // namespace spillway

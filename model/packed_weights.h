#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "formats/gguf.h"
#include "formats/mapped_file.h"
#include "kernels/make_backend.h"
#include "kv/block.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace spillway {

// A model's matrices as Backend::pack() leaves them, in a file that every process of a machine maps: packed once, one
// copy in memory. A page of header, then the matrices in the order of Weights::matrices(), each from a page border. The
// header holds model, pack format, size and an XXH3 digest of all that follows, which guard against damage, not against
// an author: whoever may write the folder may choose the weights. Immutable; written aside, then renamed into place.
class PackedWeights {
 public:
  PackedWeights() = default;  // none: load_weights() packs

  static std::string file_name(const ModelId& model, std::string_view pack_format);
  // Reads the whole file once. kInvalidArgument: not there or not readable; kCorrupt: cut, changed, or of another model
  // or format.
  static Result<PackedWeights> map(const std::string& path, const ModelId& model, std::string_view pack_format);
  // Throws SetupError naming path and cause (no space, no right); leaves no partial file at `path`.
  static void write(const std::string& path, const ModelId& model, std::string_view pack_format,
                    const Weights& weights);
  // The file of `folder` (made if need be), written first where it is missing or damaged: takes a Backend's packing
  // time and memory until it is written. An empty folder: none. Throws SetupError; any number of processes may call at
  // once.
  static PackedWeights find_or_make(const std::string& folder, const GgufFile& file, const ModelConfig& config,
                                    const ModelId& model, const BackendConfig& backend);

  // What killed writers left of that file; the next find_or_make() removes it.
  static std::vector<std::string> leftovers(const std::string& folder, const ModelId& model,
                                            const BackendConfig& backend);

  std::span<const std::byte> bytes() const;  // what load_weights() takes; lives as long as this

 private:
  explicit PackedWeights(MappedFile file) : file_(std::move(file)) {}
  MappedFile file_;
};

}  // namespace spillway

#pragma once

#include "cli/options.h"
#include "formats/gguf.h"
#include "kernels/backend.h"
#include "model/model_config.h"
#include "model/packed_weights.h"
#include "model/weights_cache.h"

namespace spillway {

// --cache-dir and --cache-max-bytes; the user's cache folder (XDG_CACHE_HOME, else HOME) where no folder is named, none
// for "none" and where there is no such folder.
WeightsCacheConfig weights_cache_of(const Options& options);

// The packed weights of `file`: of --packed-fd, which whoever passed it has checked, or find_or_pack_weights(). Throws
// SetupError; of the descriptor: it is of another model file (which has changed since) or packing.
PackedWeights packed_weights_of(const Options& options, const GgufFile& file, const ModelConfig& config,
                                Backend& backend);

// The digest of the model file, out of --packed-fd where there is one; else reads the file. Throws SetupError.
FileDigest model_digest_of(const Options& options, const GgufFile& file);

// For those who start others: the packed weights as a descriptor to hand on, and the digest.
struct SharedWeights {
  UniqueFd packed;
  FileDigest model_digest{};
};
SharedWeights share_weights(const Options& options);  // throws SetupError

}  // namespace spillway

#include "cli/packed_model.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cstdlib>
#include <memory>

#include "cli/precision.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "kernels/make_backend.h"

namespace spillway {
namespace {

constexpr const char* kNone = "none";

std::string default_folder() {
  if (const char* const cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
    return std::string(cache) + "/spillway";
  if (const char* const home = std::getenv("HOME"); home != nullptr && *home == '/')
    return std::string(home) + "/.cache/spillway";
  return {};
}

UniqueFd take_descriptor(const Options& options) {
  if (::fcntl(options.packed_fd, F_SETFD, FD_CLOEXEC) != 0)
    throw SetupError(fmt::format("--packed-fd {} is no open descriptor", options.packed_fd));
  return UniqueFd(options.packed_fd);
}

std::string name_of(const Options& options) { return fmt::format("--packed-fd {}", options.packed_fd); }

SetupError model_has_changed(const Options& options) {
  return SetupError(
      fmt::format("{} is not the file whose weights were packed when this server started: start the "
                  "server again",
                  options.model));
}

}  // namespace

WeightsCacheConfig weights_cache_of(const Options& options) {
  WeightsCacheConfig config;
  if (options.cache_dir != kNone) config.folder = options.cache_dir.empty() ? default_folder() : options.cache_dir;
  config.bytes_max = options.cache_max_bytes;
  return config;
}

PackedWeights packed_weights_of(const Options& options, const GgufFile& file, const ModelConfig& config,
                                Backend& backend) {
  if (options.packed_fd < 0) return find_or_pack_weights(file, config, backend, weights_cache_of(options));
  if (!file.facts()) throw model_has_changed(options);
  const PackedKey key{*file.facts(), std::string(backend.pack_format())};
  return value_or_throw(PackedWeights::map(take_descriptor(options), name_of(options), key));
}

FileDigest model_digest_of(const Options& options, const GgufFile& file) {
  if (options.packed_fd < 0) return digest_of(file);
  const UniqueFd packed = take_descriptor(options);
  const MappedFile mapping = value_or_throw(MappedFile::map(packed.get(), name_of(options)));
  const PackedHeader header = value_or_throw(read_header(mapping.bytes()));
  if (header.key.model != file.facts()) throw model_has_changed(options);
  return header.model_digest;
}

SharedWeights share_weights(const Options& options) {
  const GgufFile file = value_or_throw(GgufFile::open(options.model));
  const ModelConfig config = value_or_throw(read_model_config(file));
  const std::unique_ptr<Backend> backend =
      make_backend({.isa = options.isa, .threads = options.threads, .precision = precision_of(options)});
  PackedWeights packed = find_or_pack_weights(file, config, *backend, weights_cache_of(options));
  const FileDigest digest = packed.model_digest();
  return {std::move(packed).unmap(), digest};
}

}  // namespace spillway

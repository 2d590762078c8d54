#include "cli/public_prefix_file.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "cli/memory_plan.h"
#include "cli/private_file.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "gateway/openai_request.h"
#include "gateway/public_prefixes.h"
#include "text/tokenizer.h"

namespace spillway {
namespace {

std::string read_all(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a FIFO must not hang
  if (!file) throw SetupError(fmt::format("cannot open public prefix file {}: {}", path, std::strerror(errno)));
  return read_small_file(file, path, "public prefix", kPublicPrefixFileBytesMax);
}

}  // namespace

std::vector<std::vector<TokenId>> read_public_prefixes(const std::string& path, const ServedModel& model) {
  const std::string text = read_all(path);
  std::vector<std::vector<TokenId>> prefixes;
  std::string_view left = text;
  for (size_t number = 1; !left.empty(); ++number) {
    std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(line.size() + 1, left.size()));
    line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
    if (line.empty() || line.front() == '#') continue;
    const auto fail_line = [&](const std::string& cause) {
      return SetupError(
          fmt::format("public prefix file {}, line {}: {}. A line is {{\"messages\": [...]}} or "
                      "{{\"prompt\": \"...\"}}, as a client would send it",
                      path, number, cause));
    };
    if (prefixes.size() == kPublicPrefixesMax)
      throw fail_line(fmt::format("it is one prefix too many, at most {} are taken", kPublicPrefixesMax));
    auto tokens = parse_public_prefix(line, model);
    if (!tokens) throw fail_line(tokens.error().message);
    prefixes.push_back(std::move(*tokens));
  }
  if (prefixes.empty())
    throw SetupError(
        fmt::format("public prefix file {} has no prefixes: it must have 1 to {}", path, kPublicPrefixesMax));
  return prefixes;
}

size_t check_public_prefixes(const Options& options) {
  if (options.public_prefix_file.empty()) return 0;
  const GgufFile file = value_or_throw(GgufFile::open(options.model));
  const std::unique_ptr<Tokenizer> tokenizer = value_or_throw(Tokenizer::from_gguf(file));
  ServedModel::Settings settings;
  settings.names = {"checked"};
  settings.max_model_len = effective_model_len(options, value_or_throw(read_model_config(file)));
  const ServedModel served = value_or_throw(ServedModel::from_gguf(file, *tokenizer, std::move(settings)));
  return read_public_prefixes(options.public_prefix_file, served).size();
}

}  // namespace spillway

// The bits that each numerics class stands for. docs/numerics.md keeps, per class, the XXH3-64 of the f32 logits of the
// real model after a fixed prompt; a kernel that rounds differently must come with a new class, never with a new hash.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/make_backend.h"
#include "tests/model/decoder_harness.h"

namespace spillway {
namespace {

constexpr uint32_t kPromptTokens = 270;  // past one attention split, ending inside a block
constexpr uint64_t kPromptSeed = 20261124;

std::map<unsigned, std::string> documented_canaries() {
  std::ifstream file(SPILLWAY_NUMERICS);
  std::map<unsigned, std::string> canaries;
  const std::regex row(R"(^\| (\d+) \|.*\| `([0-9a-f]{16})` \|$)");
  std::smatch match;
  for (std::string line; std::getline(file, line);)
    if (std::regex_match(line, match, row)) canaries.emplace(std::stoul(match[1]), match[2]);
  return canaries;
}

TEST(Canary, EveryNumericsClassHasTheBitsItIsDocumentedWith) {
  const Result<GgufFile> file = GgufFile::open(SPILLWAY_MODEL);
  ASSERT_TRUE(file) << file.error().detail;
  const std::map<unsigned, std::string> documented = documented_canaries();
  std::vector<std::pair<std::string, Precision>> backends;
  for (const Activations activations : {Activations::kBf16, Activations::kInt8})
    for (const KvDtype kv : {KvDtype::kBf16, KvDtype::kInt8})
      for (const std::string& isa : available_isa_levels({activations, kv}))
        backends.push_back({isa, {activations, kv}});
  for (const auto& [isa, precision] : backends) {
    DecoderHarness harness(*file,
                           {.isa = isa, .threads = 2, .logit_rows_max = 1, .slot_count = 8, .precision = precision});
    const std::vector<TokenId> prompt = draw_tokens(kPromptSeed, kPromptTokens, harness.config().vocab);
    std::vector<float> logits = harness.last_logits(prompt, kPromptTokens, slots_from(0, 5));
    ASSERT_EQ(logits.size(), harness.config().vocab);
    SampleRow row;
    row.digest = true;
    harness.backend().sample(
        {{reinterpret_cast<std::byte*>(logits.data()), DataType::kF32, {1, harness.config().vocab, 1}}, {&row, 1}});
    ASSERT_TRUE(row.finite);
    const unsigned id = static_cast<unsigned>(harness.backend().numerics());
    ASSERT_TRUE(documented.contains(id)) << "docs/numerics.md has no canary for class " << id;
    EXPECT_EQ(fmt::format("{:016x}", row.logits_digest), documented.at(id))
        << harness.backend().name()
        << ": the bits changed. Give them a new numerics class; do not change the hash of an old one";
  }
}

}  // namespace
}  // namespace spillway

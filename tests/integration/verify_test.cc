// Placement invariance inside one process: every way to compute, on tiny models in full and on the real one.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <set>
#include <string>

#include "cli/verify_command.h"
#include "kernels/make_backend.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

void expect_all_equal(const std::vector<VerifyGroup>& groups) {
  const std::string table = format_verification(groups);
  fmt::print("{}", table);
  for (const VerifyGroup& group : groups) EXPECT_TRUE(all_equal(group.outcomes)) << group.backend;
}

TEST(Verify, EveryRouteOfEveryIsaLevelIsEqualOnTinyModels) {
  using Types = TinyModelOptions::Types;
  const TinyModelOptions models[] = {{.seed = 21, .types = Types::kMixed},
                                     {.seed = 22, .head_dim = 32, .types = Types::kQ4_1, .tied = false}};
  for (const TinyModelOptions& options : models) {
    const ModelFile file(TinyModelFile(options).path());
    const VerifyRequest request = verify_request(file, 300, 12);
    const auto groups = verify_locally(file, "auto", 2, request, request);
    EXPECT_EQ(groups.size(), available_isa_levels().size());
    expect_all_equal(groups);
    std::set<std::string> names;
    for (const RouteOutcome& outcome : groups.front().outcomes) {
      names.insert(outcome.name);
      ASSERT_TRUE(outcome.result) << outcome.name << ": " << outcome.result.error().detail;
      EXPECT_EQ(outcome.result->tokens.size(), 12u) << outcome.name;
    }
    for (const char* name : {"no cache", "pruned", "KV cache", "chunks of 1", "chunks of 17", "chunks of 64",
                             "chunks of 512", "1 thread", "2 threads", "batch of 1, cold", "batch of 8", "prefix hit"})
      EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST(Verify, PromptsAroundABlockBoundaryAreEqual) {
  const ModelFile file(TinyModelFile({.seed = 23}).path());
  for (const uint32_t prompt_tokens : {1u, 63u, 64u, 65u, 255u, 256u, 257u}) {
    const VerifyRequest request = verify_request(file, prompt_tokens, 4);
    LocalModel model(file, verify_limits(file.config(), request, "auto", 2));
    const auto outcomes = run_routes(local_routes(model, request));
    EXPECT_TRUE(all_equal(outcomes)) << prompt_tokens << " prompt tokens\n"
                                     << format_verification({{{.backend = "auto", .outcomes = outcomes}}});
  }
}

TEST(Verify, OneFlippedKvBitFailsItsRowAndNoOther) {
  const ModelFile file(TinyModelFile({.seed = 24}).path());
  VerifyRequest request = verify_request(file, 100, 6);
  request.flip_bit = true;
  LocalModel model(file, verify_limits(file.config(), request, "auto", 1));
  for (const RouteOutcome& outcome : run_routes(local_routes(model, request)))
    EXPECT_EQ(outcome.equal, outcome.name != "KV cache") << outcome.name;
}

// The executable itself: it also starts nodes of its own kind, which this test binary could not be.
TEST(Verify, TheCommandExitsByWhatItFound) {
  const TinyModelFile tiny({.seed = 25, .context = 200});
  const std::string command =
      fmt::format("{} verify -m {} --max-tokens 3 --threads 1", SPILLWAY_EXECUTABLE, tiny.path());
  const int good = std::system(command.c_str());
  EXPECT_TRUE(WIFEXITED(good) && WEXITSTATUS(good) == 0) << good;
  const int flipped = std::system((command + " --flip-bit").c_str());
  EXPECT_TRUE(WIFEXITED(flipped) && WEXITSTATUS(flipped) == 1) << flipped;
}

TEST(Verify, ARouteThatFailsIsNotEqual) {
  const std::vector<VerifyRoute> routes{
      {"first", [] { return Result<RouteResult>(RouteResult{.tokens = {1}, .logits_hash = 2}); }},
      {"broken", [] { return Result<RouteResult>(fail(ErrorCode::kPeerLost, "gone")); }},
      {"same", [] { return Result<RouteResult>(RouteResult{.tokens = {1}, .logits_hash = 2}); }},
      {"other hash", [] { return Result<RouteResult>(RouteResult{.tokens = {1}, .logits_hash = 3}); }},
  };
  const auto outcomes = run_routes(routes);
  EXPECT_TRUE(outcomes[0].equal);
  EXPECT_FALSE(outcomes[1].equal);
  EXPECT_TRUE(outcomes[2].equal);
  EXPECT_FALSE(outcomes[3].equal);
  EXPECT_FALSE(all_equal(outcomes));
  const std::vector<RouteOutcome> only_failed{outcomes[1]};
  EXPECT_FALSE(all_equal(only_failed));
}

// The fastest level with a prompt of several blocks; the scalar one with a short prompt.
TEST(Verify, EveryRouteIsEqualOnTheRealModel) {
  const ModelFile file(SPILLWAY_MODEL);
  const VerifyRequest request = verify_request(file, 150, 4);
  VerifyRequest request_flipped = request;
  expect_all_equal(verify_locally(file, "auto", 2, request, verify_request(file, 12, 2)));
  request_flipped.flip_bit = true;
  LocalModel model(file, verify_limits(file.config(), request_flipped, "auto", 2));
  const std::vector<VerifyRoute> routes = local_routes(model, request_flipped);
  const auto outcomes = run_routes(std::span(routes).subspan(1, 2));  // pruned, KV cache
  EXPECT_TRUE(outcomes[0].equal);
  EXPECT_FALSE(outcomes[1].equal);
}

}  // namespace
}  // namespace spillway

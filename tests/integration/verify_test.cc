// Placement invariance inside one process: every way to compute, on tiny models in full and on the real one.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "cli/process_cluster.h"
#include "cli/process_routes.h"
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
    VerifyRequest request = verify_request(file, 300, 12);
    const auto groups = verify_locally(file, "auto", 2, request, request);
    EXPECT_EQ(groups.size(), available_isa_levels().size());
    expect_all_equal(groups);
    request.precision.kv = KvDtype::kInt8;
    const auto int8_groups = verify_locally(file, "auto", 2, request, request);
    expect_all_equal(int8_groups);
    EXPECT_NE(int8_groups.front().outcomes.front().result->logits_hash,
              groups.front().outcomes.front().result->logits_hash);
    std::set<std::string> names;
    for (const RouteOutcome& outcome : groups.front().outcomes) {
      names.insert(outcome.name);
      ASSERT_TRUE(outcome.result) << outcome.name << ": " << outcome.result.error().detail;
      EXPECT_EQ(outcome.result->tokens.size(), 12u) << outcome.name;
    }
    for (const char* name :
         {"no cache", "pruned", "KV cache", "chunks of 1", "chunks of 17", "chunks of 64", "chunks of 512", "1 thread",
          "2 threads", "batch of 1, cold", "batch of 8", "preempted, recomputed", "prefix hit"})
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

TEST(Verify, AnAnswerOfSeveralBlocksIsPreemptedAndEqual) {
  const ModelFile file(TinyModelFile({.seed = 29}).path());
  const VerifyRequest request = verify_request(file, 64, 140);  // its growth alone would fill the pool
  LocalModel model(file, verify_limits(file.config(), request, "auto", 2));
  const auto outcomes = run_routes(local_routes(model, request));
  EXPECT_TRUE(all_equal(outcomes)) << format_verification({{{.backend = "auto", .outcomes = outcomes}}});
}

TEST(Verify, OneFlippedKvBitFailsItsRowAndNoOther) {
  const ModelFile file(TinyModelFile({.seed = 24}).path());
  VerifyRequest request = verify_request(file, 100, 6);
  request.flip_bit = true;
  for (const KvDtype kv : {KvDtype::kBf16, KvDtype::kInt8}) {
    request.precision.kv = kv;
    LocalModel model(file, verify_limits(file.config(), request, "auto", 1));
    for (const RouteOutcome& outcome : run_routes(local_routes(model, request)))
      EXPECT_EQ(outcome.equal, outcome.name != "KV cache") << kv_dtype_name(kv) << ", " << outcome.name;
  }
}

// The executable itself: it also starts nodes of its own kind, which this test binary could not be.
TEST(Verify, TheCommandExitsByWhatItFound) {
  const TinyModelFile tiny({.seed = 25, .context = 200});
  const std::string command =
      fmt::format("{} verify -m {} --max-tokens 3 --threads 1", SPILLWAY_EXECUTABLE, tiny.path());
  for (const std::string& isa : available_isa_levels()) {
    const int good = std::system((command + " --isa " + isa).c_str());
    EXPECT_TRUE(WIFEXITED(good) && WEXITSTATUS(good) == 0) << isa << ": " << good;
  }
  const TinyModelFile narrow({.seed = 31, .context = 200, .types = TinyModelOptions::Types::kQ4_1});
  const int int8 = std::system(
      fmt::format("{} verify -m {} --max-tokens 3 --threads 1 --activations int8 --kv-dtype int8", SPILLWAY_EXECUTABLE,
                  narrow.path())
          .c_str());
  EXPECT_TRUE(WIFEXITED(int8) && WEXITSTATUS(int8) == 0) << int8;
  const int flipped = std::system((command + " --flip-bit").c_str());
  EXPECT_TRUE(WIFEXITED(flipped) && WEXITSTATUS(flipped) == 1) << flipped;
}

Options cluster_options(const TinyModelFile& tiny, uint32_t nodes_per_role) {
  Options options;
  options.model = tiny.path();
  options.prefill = options.decode = nodes_per_role;
  options.threads = 1;
  options.log_level = "warning";
  options.cache_dir = "none";
  options.device_memory = uint64_t{16} << 20;
  return options;
}

TEST(Verify, TwoRequestsAtOnceAreServedByBothPairs) {
  const TinyModelFile tiny({.seed = 26, .context = 200});
  const VerifyRequest request = verify_request(ModelFile(tiny.path()), 100, 4);
  ProcessCluster cluster(cluster_options(tiny, 2), SPILLWAY_EXECUTABLE);
  std::set<PeerId> nodes;
  for (const auto& answer : cluster.generate(request.prompt, request.tokens_max, 2)) {
    ASSERT_TRUE(answer) << answer.error().detail;
    EXPECT_EQ(answer->nodes.size(), 2u);
    nodes.insert(answer->nodes.begin(), answer->nodes.end());
  }
  EXPECT_EQ(nodes.size(), 4u);
}

TEST(Verify, AnAnswerThatOutgrowsTheNodesIsPreemptedAndEqual) {
  const TinyModelFile tiny({.seed = 30, .context = 400});
  const ModelFile file(tiny.path());
  const VerifyRequest request = verify_request(file, 310, 16);  // as the command does
  const LocalModel::Limits limits = verify_limits(file.config(), request, "auto", 1);
  LocalModel model(file, limits);
  const std::vector<VerifyRoute> routes = local_routes(model, request);
  const auto expected = run_routes(std::span(routes).first(1)).front().result;
  ASSERT_TRUE(expected);
  const auto outcomes = verify_processes(cluster_options(tiny, 1), SPILLWAY_EXECUTABLE, request, *expected);
  EXPECT_TRUE(all_equal(outcomes)) << format_verification({{{.backend = "processes", .outcomes = outcomes}}});
  EXPECT_EQ(std::ranges::count(outcomes, "1P1D, preempted", &RouteOutcome::name), 1);
}

TEST(Verify, APrefixHitThatFoundNothingIsAnError) {
  EXPECT_FALSE(check_prefix_hit({}));
  EXPECT_FALSE(check_prefix_hit({.prefill_cached_tokens = 64}));
  EXPECT_FALSE(check_prefix_hit({.decode_cached_tokens = 64}));
  EXPECT_TRUE(check_prefix_hit({.prefill_cached_tokens = 64, .decode_cached_tokens = 64}));
}

TEST(Verify, APreemptionThatDidNotHappenIsAnError) {
  EXPECT_FALSE(check_preempted({}));
  EXPECT_FALSE(check_preempted({.preemptions = 1}));
  EXPECT_FALSE(check_preempted({.recomputed_tokens = 40}));
  EXPECT_TRUE(check_preempted({.preemptions = 1, .recomputed_tokens = 40}));
}

TEST(Verify, ANodeThatEndsWhileStartingIsNamedAtOnce) {
  const TinyModelFile tiny({.seed = 27});
  const TimePoint start = steady_now();
  try {
    const ProcessCluster cluster(cluster_options(tiny, 1), "/bin/false");
    FAIL();
  } catch (const SetupError& error) {
    const std::string why = error.what();  // both end: whichever is seen first
    EXPECT_TRUE(why == "prefill 0 exited with code 1 before it joined" ||
                why == "decode 0 exited with code 1 before it joined")
        << why;
  }
  EXPECT_LT(seconds(steady_now() - start), 30);
}

// Interrupted while its nodes run: no folder is left behind.
TEST(Verify, AnInterruptedCommandRemovesItsRunFolder) {
  const TinyModelFile tiny({.seed = 28});
  std::string runtime = testing::TempDir() + "spillway-verify-XXXXXX";
  ASSERT_NE(::mkdtemp(runtime.data()), nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
    ::execl(SPILLWAY_EXECUTABLE, "spillway", "verify", "-m", tiny.path().c_str(), "--threads", "1", nullptr);
    ::_exit(127);
  }
  const TimePoint deadline = steady_now() + std::chrono::seconds(100);
  while (std::filesystem::is_empty(runtime) && steady_now() < deadline) ::poll(nullptr, 0, 5);
  EXPECT_FALSE(std::filesystem::is_empty(runtime));
  ::kill(pid, SIGINT);
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 2) << status;
  EXPECT_TRUE(std::filesystem::is_empty(runtime));
  std::filesystem::remove_all(runtime);
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
  VerifyRequest request_int8 = verify_request(file, 70, 3), request_int8_short = verify_request(file, 12, 2);
  request_int8.precision = request_int8_short.precision = {.activations = Activations::kInt8};
  expect_all_equal(verify_locally(file, "auto", 2, request_int8, request_int8_short));
  request_flipped.flip_bit = true;
  const LocalModel::Limits limits = verify_limits(file.config(), request_flipped, "auto", 2);
  LocalModel model(file, limits);
  const std::vector<VerifyRoute> routes = local_routes(model, request_flipped);
  const auto outcomes = run_routes(std::span(routes).subspan(1, 2));  // pruned, KV cache
  EXPECT_TRUE(outcomes[0].equal);
  EXPECT_FALSE(outcomes[1].equal);

  Options nodes;
  nodes.model = SPILLWAY_MODEL;
  nodes.device_memory = limits.kv_bytes;
  const auto served = verify_processes(nodes, SPILLWAY_EXECUTABLE, request, outcomes[0].result.value());
  EXPECT_EQ(served.size(), 6u);
  EXPECT_EQ(std::ranges::count(served, "colocated", &RouteOutcome::name), 1);
  EXPECT_TRUE(all_equal(served)) << format_verification({{{.backend = "processes", .outcomes = served}}});
}

TEST(Verify, EveryRouteIsEqualOnTheRealModelWithInt8Kv) {
  const ModelFile file(SPILLWAY_MODEL);
  VerifyRequest request = verify_request(file, 150, 4);
  request.precision.kv = KvDtype::kInt8;
  const LocalModel::Limits limits = verify_limits(file.config(), request, "auto", 2);
  LocalModel model(file, limits);
  const auto outcomes = run_routes(local_routes(model, request));
  EXPECT_TRUE(all_equal(outcomes)) << format_verification({{{.backend = "auto", .outcomes = outcomes}}});
  Options nodes;
  nodes.model = SPILLWAY_MODEL;
  nodes.kv_dtype = "int8";
  nodes.device_memory = limits.kv_bytes;
  const auto served = verify_processes(nodes, SPILLWAY_EXECUTABLE, request, outcomes[0].result.value());
  EXPECT_TRUE(all_equal(served)) << format_verification({{{.backend = "processes", .outcomes = served}}});
}

}  // namespace
}  // namespace spillway

// Every "cannot start" says its cause, its numbers and a remedy.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "cli/serve_check.h"
#include "common/check.h"
#include "common/unique_fd.h"
#include "parsed.h"

namespace spillway {
namespace {

ModelConfig model() {
  ModelConfig config;
  config.layer_count = 2;
  config.heads = config.kv_heads = 8;
  config.head_dim = config.hidden = config.feed_forward = 64;
  config.vocab = 256;
  config.context_max = 2048;
  return config;
}

std::string said_by(const std::function<void()>& start) try {
  start();
  return "";
} catch (const SetupError& error) {
  return error.what();
}

TEST(SetupMessage, AHostThatOthersReachNeedsMore) {
  const auto said_of = [](std::string host) {
    Options options;
    options.host = std::move(host);
    options.port = 0;
    return said_by([&] { check_exposure(options); });
  };
  EXPECT_NE(said_of("").find("--host is empty"), std::string::npos);
  for (const char* const host : {"::", "0.0.0.0", "0"})
    EXPECT_NE(said_of(host).find("--insecure"), std::string::npos) << host;
  for (const char* const host : {"localhost", "127.0.0.1", "::1"}) EXPECT_EQ(said_of(host), "") << host;
}

TEST(SetupMessage, AModelFileThatNoClientCouldNameNeedsAName) {
  Options options;
  for (const char* const good : {"models/a.gguf", "b", "/x/caf\xc3\xa9.q8.gguf"}) {
    options.model = good;
    EXPECT_EQ(said_by([&] { (void)model_name_of_file(options); }), "") << good;
  }
  options.model = "models/caf\xe9.gguf";
  EXPECT_NE(said_by([&] { (void)model_name_of_file(options); }).find("--served-model-name"), std::string::npos);
}

TEST(SetupMessage, SaysCauseNumbersAndRemedy) {
  const std::string file = testing::TempDir() + "/spillway-message-" + std::to_string(::getpid());
  std::ofstream(file) << "GGUF";  // and no more
  const UniqueFd taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(taken.get(), generic, length), 0);
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  ASSERT_EQ(::getsockname(taken.get(), generic, &length), 0);
  const auto port = std::to_string(ntohs(address.sin_port));

  ModelConfig windowed = model();
  windowed.sliding_window = windowed.context_max;
  Options long_one, small, at_port;
  long_one.max_model_len = 4096;
  small.device_memory = 1 << 20;
  at_port.port = ntohs(address.sin_port);
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases{
      {said_by([&] { effective_model_len(long_one, model()); }), {"4096", "2048 tokens", "lower it to 2048"}},
      {said_by([&] { effective_model_len(long_one, windowed); }), {"2048 tokens", "attention window"}},
      {*memory_shortage(small, {model(), 1 << 20}, ~uint64_t{0}), {"2048 tokens", "1 MiB", "raise --device-memory to"}},
      {*memory_shortage(Options{}, {model(), 1 << 20}, 1 << 20),
       {"2 nodes need", "1 MiB is available", "start fewer nodes", "or free "}},
      {said_by([&] { check_address(at_port); }), {"127.0.0.1:" + port, "in use", "--port 0"}},
      {said_by([&] { check_can_make(file + "/weights"); }), {file + "/weights", "is not a folder"}},
      {said_by([&] { const ModelFile opened(file); }), {file, "trunc"}},
      {refusal({"serve", "-m", file + ".gone"}), {"--model", file + ".gone", "name a GGUF file"}},
  };
  for (const auto& [said, parts] : cases)
    for (const std::string& part : parts) EXPECT_NE(said.find(part), std::string::npos) << part << " in: " << said;
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace spillway

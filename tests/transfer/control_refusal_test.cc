// Who may not talk to whom, and what a refusal ends.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/captured_log.h"
#include "tests/transfer/channel_end.h"
#include "transfer/control_channel.h"

namespace spillway {
namespace {

TEST_F(ControlChannelTest, AnotherModelOrProtocolIsRefusedNamingBoth) {
  a_ = make("a", hello_of(1, "gateway"));
  Hello other = hello_of(2, "prefill 0");
  other.model.bytes[0] = std::byte{0xAB};
  b_ = make("", other);
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return !b_->channel.refused_reason().empty(); }));
  const std::string zero = ModelId{}.hex();
  EXPECT_EQ(b_->channel.refused_reason(), "\"prefill 0\" has model " + other.model.hex() + ", \"gateway\" has model " +
                                              zero + ": give both the same model file");
  other = hello_of(2, "prefill 0");
  other.protocol_version = kProtocolVersion + 1;
  b_ = make("", other);
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return !b_->channel.refused_reason().empty(); }));
  EXPECT_EQ(b_->channel.refused_reason(),
            fmt::format("\"prefill 0\" speaks protocol version {}, \"gateway\" speaks {}: run the same release on both",
                        kProtocolVersion + 1, kProtocolVersion));
  EXPECT_TRUE(a_->events.empty());
  EXPECT_TRUE(a_->channel.refused_reason().empty());
}

TEST_F(ControlChannelTest, AnotherCanaryIsRefusedInTheSameNumericsClassOnly) {
  Hello ours = hello_of(1, "decode 0"), theirs = hello_of(2, "prefill 0");
  ours.encoding.numerics = theirs.encoding.numerics = NumericsClass{7};
  ours.canary = 0x10, theirs.canary = 0x11;
  a_ = make("a", ours);
  b_ = make("", theirs);
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return !b_->channel.refused_reason().empty(); }));
  EXPECT_EQ(b_->channel.refused_reason(),
            "\"prefill 0\" and \"decode 0\" compute different bits in numerics class 7, canary 0000000000000011 and "
            "0000000000000010: run the same release with the same libm on both");
  theirs.encoding.numerics = NumericsClass{8};
  b_ = make("", theirs);
  b_->channel.connect(endpoint("a"));
  EXPECT_TRUE(both([&] { return a_->events.size() == 1 && b_->events.size() == 1; }));
  // A refusal after all. By a peer that is not its home it ends that connection only, until it is named again.
  b_->channel.connect(endpoint("a"), ControlChannel::Endpoint::kOther);
  a_->channel.send(a_->peer(), HelloRefused{"on second thoughts"});
  EXPECT_TRUE(both([&] { return b_->all<PeerGone>().size() == 1; }));
  EXPECT_TRUE(b_->channel.refused_reason().empty());
  EXPECT_EQ(b_->channel.next_deadline(), kNever);
  b_->channel.connect(endpoint("a"));
  EXPECT_TRUE(both([&] { return b_->all<PeerUp>().size() == 2; }));
  a_->channel.send(a_->all<PeerUp>().back().peer, HelloRefused{"no"});
  EXPECT_TRUE(both([&] { return b_->channel.refused_reason() == "no"; }));
}

TEST_F(ControlChannelTest, AHomeThatRefusesIsAskedAgainWhileAnotherMayBeThere) {
  Hello ours = hello_of(2, "decode 0"), other = hello_of(3, "second");
  other.model.bytes[0] = std::byte{0xAB};
  a_ = make("a", hello_of(1, "first"));
  b_ = make("", ours);
  std::unique_ptr<ChannelEnd> second = make("c", other);
  const auto all = [&](const std::function<bool()>& done) {
    return run_channels({a_.get(), b_.get(), second.get()}, done);
  };
  CapturedLog log(LogFormat::kText, spdlog::level::info);
  b_->channel.connect(endpoint("c"));
  // The second has refused it, the first is not named yet: there is nobody.
  ASSERT_TRUE(all([&] { return !b_->channel.refused_reason().empty(); }));
  b_->channel.connect(endpoint("a"));
  EXPECT_EQ(b_->channel.refused_reason(), "");  // not asked yet
  ASSERT_TRUE(all([&] { return b_->all<PeerUp>().size() == 1; }));
  EXPECT_EQ(b_->channel.refused_reason(), "");
  b_->channel.send(b_->peer(), Load{1, 0, 0});
  EXPECT_TRUE(all([&] { return a_->all<PeerMessage>().size() == 1; }));
  // Its successor has the right model.
  second.reset();
  second = make("c", hello_of(4, "second"));
  ASSERT_TRUE(all([&] { return b_->all<PeerUp>().size() == 2; }));
  EXPECT_TRUE(b_->all<PeerGone>().empty());
  // A core's refusal comes behind the Hello, and is one as well.
  second->channel.send(second->peer(), HelloRefused{"other bits"});
  ASSERT_TRUE(all([&] { return b_->all<PeerUp>().size() == 3; }));
  EXPECT_EQ(b_->all<PeerGone>().size(), 1u);
  // The first is away, which is no refusal: it may come back.
  a_.reset();
  second->channel.send(second->all<PeerUp>().back().peer, HelloRefused{"other bits"});
  ASSERT_TRUE(run_channels({b_.get(), second.get()}, [&] { return b_->all<PeerGone>().size() == 3; }));
  EXPECT_EQ(b_->channel.refused_reason(), "");
  std::vector<std::string> said = log.take_lines();
  std::erase_if(said, [](const std::string& line) { return line.find("refused by a peer") == std::string::npos; });
  ASSERT_EQ(said.size(), 2u);  // a line for each reason, however often it is asked again
  EXPECT_NE(said[0].find("model"), std::string::npos) << said[0];
  EXPECT_NE(said[1].find("other bits"), std::string::npos) << said[1];
  for (const std::string& line : said) {
    EXPECT_NE(line.find("error"), std::string::npos) << line;
    EXPECT_NE(line.find(endpoint("c")), std::string::npos) << line;
  }
}

TEST_F(ControlChannelTest, NoPeerForgesALogLineByItsNameOrReason) {
  const std::string hostile = "x\n12:00:00.000 info  [gateway] forged \"pid=1\r\x1b[2J";
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    CapturedLog log(format);
    b_.reset(), a_.reset();
    a_ = make("a", hello_of(1, "gateway"));
    b_ = make("", hello_of(2, hostile));
    b_->channel.connect(endpoint("a"));
    ASSERT_TRUE(both([&] { return a_->events.size() == 1 && b_->events.size() == 1; }));
    b_->channel.send(b_->peer(), HelloRefused{hostile});
    a_->channel.send(a_->peer(), HelloRefused{hostile});
    EXPECT_TRUE(both([&] { return !b_->channel.refused_reason().empty(); }));
    const std::vector<std::string> lines = log.take_lines();
    size_t told = 0;
    for (const std::string& line : lines) {
      EXPECT_EQ(line.find("forged \"pid"), std::string::npos) << line;
      EXPECT_TRUE(std::ranges::all_of(line, [](char c) { return c >= 0x20 && c <= 0x7e; })) << line;
      told += line.find("forged") != std::string::npos ? 1 : 0;
      EXPECT_FALSE(line.starts_with("12:00:00.000 info  [gateway] forged")) << line;
    }
    EXPECT_GE(told, 2u);  // its name and its reason
  }
}

}  // namespace
}  // namespace spillway

#include "transfer/control_endpoint.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

TEST(ControlEndpoint, ThisMachineIsTaken) {
  for (const char* const good : {"ipc:///run/user/1/gateway.sock", "ipc://relative", "tcp://127.0.0.1:5000",
                                 "tcp://127.4.5.6:1"})
    EXPECT_EQ(local_control_endpoint(good).value_or("refused"), good);
  EXPECT_EQ(local_control_endpoint("tcp://localhost:7").value_or("refused"), "tcp://127.0.0.1:7");
}

TEST(ControlEndpoint, OtherMachinesAreRefusedByName) {
  for (const char* const bad :
       {"tcp://10.0.0.1:5", "tcp://0.0.0.0:5", "tcp://*:5", "tcp://[::]:5", "tcp://example.com:5",
        "tcp://localhost.example.com:5", "tcp://127.0.0.1.example.com:5", "tcp://:5", "tcp://eth0:5",
        "tcp://127.0.0.1;10.0.0.1:5", "tcp://10.0.0.1:5;127.0.0.1:5", "tcp://[::ffff:127.0.0.1]:5", "tcp://128.0.0.1:5",
        "tcp://2130706433:5"}) {
    const auto endpoint = local_control_endpoint(bad);
    ASSERT_FALSE(endpoint) << bad;
    EXPECT_NE(endpoint.error().detail.find(bad), std::string::npos);
    EXPECT_NE(endpoint.error().detail.find("no keys yet"), std::string::npos) << bad;
  }
}

TEST(ControlEndpoint, WhatIsNoEndpointIsRefused) {
  for (const char* const bad : {"", "ipc://", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:0",
                                "tcp://127.0.0.1:*", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:5x", "udp://127.0.0.1:5",
                                "127.0.0.1:5", "inproc://x", "pgm://127.0.0.1:5", "/tmp/x"}) {
    const auto endpoint = local_control_endpoint(bad);
    ASSERT_FALSE(endpoint) << bad;
    EXPECT_EQ(endpoint.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(endpoint.error().detail.find("is no endpoint"), std::string::npos) << bad;
  }
}

}  // namespace
}  // namespace spillway

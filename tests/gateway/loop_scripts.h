#pragma once

#include <cstdint>
#include <string>

#include "tests/gateway/fake_loop.h"

namespace spillway {

// The usual script: says `text`, then ends.
inline FakeLoop::Script says(std::string text) {
  return [text](FakeLoop& loop, const GenerateRequest& request) {
    loop.tokens(request, text);
    loop.end(request, static_cast<uint32_t>(text.size()));
  };
}
inline void says_nothing(FakeLoop&, const GenerateRequest&) {}

}  // namespace spillway

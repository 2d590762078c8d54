#pragma once

#include <cstdint>

namespace spillway {

// Bounds that the decoder enforces; a message (messages.h) outside them is kCorrupt, as is an enum value out of range,
// sampling that is out_of_bounds, a Hello that colocates but is no decode node's, output_tokens_max == 0, min_tokens
// above it, a public prefix of no token or of more than the prompt has, and a trace that is not valid().
inline constexpr uint32_t kPromptTokensMax = 1u << 20;
inline constexpr uint32_t kStopTokensMax = 8;
inline constexpr uint32_t kScoredTokensMax = 64;   // of one PromptLogprobs
inline constexpr uint32_t kDetailBytesMax = 1024;  // HelloRefused::reason, Failed::detail
inline constexpr uint32_t kNameBytesMax = 64;      // Hello::name
inline constexpr uint32_t kEndpointBytesMax = 512;
inline constexpr uint32_t kLeaseMsMax = 3'600'000;

}  // namespace spillway

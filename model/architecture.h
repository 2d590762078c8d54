#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spillway {

// Which rows of a stored Q or K head make one RoPE pair.
enum class RopeOrder : uint8_t {
  kPairs,   // 2i and 2i + 1
  kHalves,  // i and i + head_dim / 2 ("NEOX")
};

// What sets one dense decoder of the Llama family apart from the others. All else is common to them (Decoder).
struct Architecture {
  std::string_view name;  // general.architecture, and the prefix of its metadata keys; static storage
  bool qkv_bias = false;  // the QKV product has a bias
  bool qk_norm = false;   // every head of Q and of K passes an RMSNorm before it is turned
  RopeOrder rope_order = RopeOrder::kPairs;
};

inline constexpr Architecture kLlama{"llama"};  // Llama 2 and 3, Mistral, TinyLlama, SmolLM2

// nullptr: none of that name.
const Architecture* find_architecture(std::string_view name);
std::string architecture_names();  // "llama, qwen2, qwen3", for messages

}  // namespace spillway

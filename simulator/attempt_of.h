#pragma once

#include <type_traits>
#include <variant>

#include "transfer/messages.h"

namespace spillway {

// The attempt that a message is about; nullptr for messages about none.
template <class AnyMessage>
requires std::is_same_v<std::remove_const_t<AnyMessage>, Message>
auto attempt_of(AnyMessage& message) {
  using Pointer = std::conditional_t<std::is_const_v<AnyMessage>, const Attempt*, Attempt*>;
  return std::visit(
      [](auto& one) -> Pointer {
        if constexpr (requires { one.attempt; }) {
          return &one.attempt;
        } else if constexpr (requires { one.work; }) {
          return &one.work.attempt;
        } else {
          return nullptr;
        }
      },
      message);
}

}  // namespace spillway

#pragma once

#include <spdlog/spdlog.h>

#include <string>

// Logging is the one global: spdlog's default logger, set up once by main. Log state changes and failures as
// `event key=value`, never per token, never prompt text.
namespace spillway {

// Text lines on stderr, each with time, level and `role` ("gateway", "prefill 0").
void start_logging(const std::string& role, spdlog::level::level_enum level);

}  // namespace spillway

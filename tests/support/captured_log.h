#pragma once

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "common/log.h"

namespace spillway {

// What is logged from here on, instead of on stderr.
class CapturedLog {
 public:
  explicit CapturedLog(LogFormat format, spdlog::level::level_enum level = spdlog::level::trace,
                       const std::string& process = "test") {
    testing::internal::CaptureStderr();
    start_logging(process, level, format);
  }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;
  ~CapturedLog() {
    if (!taken_) (void)take();
    start_logging("test", spdlog::level::warn, LogFormat::kText);
  }

  // Once: all of it.
  std::string take() {
    taken_ = true;
    spdlog::default_logger_raw()->flush();
    return testing::internal::GetCapturedStderr();
  }
  std::vector<std::string> take_lines() {
    std::istringstream text(take());
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }

 private:
  bool taken_ = false;
};

}  // namespace spillway

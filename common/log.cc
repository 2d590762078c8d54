#include "common/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>

namespace spillway {

void start_logging(const std::string& role, spdlog::level::level_enum level) {
  auto logger = std::make_shared<spdlog::logger>(role, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(level);
  logger->set_pattern("%H:%M:%S.%e %^%-5l%$ [%n] %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace spillway

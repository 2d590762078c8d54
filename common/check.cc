#include "common/check.h"

#include <cstdio>
#include <cstdlib>

namespace spillway {

void check_failed(const char* condition, const std::source_location& where) {
  std::fprintf(stderr, "CHECK failed: %s at %s:%u in %s\n", condition, where.file_name(), where.line(),
               where.function_name());
  std::fflush(stderr);
  std::abort();
}

}  // namespace spillway

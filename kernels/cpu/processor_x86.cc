#include <xmmintrin.h>

#include "kernels/cpu/processor.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;  // MXCSR

}  // namespace

FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) {
  _mm_setcsr(static_cast<uint32_t>(saved_) | kFlushToZero | kDenormalsAreZero);
}

FlushDenormals::~FlushDenormals() { _mm_setcsr(static_cast<uint32_t>(saved_)); }

void pause_before_next_look() { _mm_pause(); }

}  // namespace spillway::cpu

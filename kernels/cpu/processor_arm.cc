#include "kernels/cpu/processor.h"

namespace spillway::cpu {
namespace {

constexpr uint64_t kFlushToZero = uint64_t{1} << 24;  // FPCR.FZ: results and operands

uint64_t mode() {
  uint64_t mode = 0;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}

void set_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }

}  // namespace

FlushDenormals::FlushDenormals() : saved_(mode()) { set_mode(saved_ | kFlushToZero); }

FlushDenormals::~FlushDenormals() { set_mode(saved_); }

void pause_before_next_look() { __asm__ volatile("yield"); }

}  // namespace spillway::cpu

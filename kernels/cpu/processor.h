#pragma once

#include <cstdint>

// What each processor family says in its own words: processor_x86.cc, processor_arm.cc.
namespace spillway::cpu {

// Flushes denormal results and operands of this thread to zero and puts the old mode back: every operation and every
// worker computes in this mode, so a result does not depend on the thread that computed it.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t saved_;
};

// Between two looks at something that another thread will change.
void pause_before_next_look();

}  // namespace spillway::cpu

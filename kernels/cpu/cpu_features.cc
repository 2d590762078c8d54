#include "kernels/cpu/cpu_features.h"

#include <cpuid.h>

namespace spillway::cpu {
namespace {

// Not a name that every compiler's builtin knows. The registers are AVX's, which AVX2 answers for.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

// The builtins read CPUID and, for AVX and AVX-512, that the operating system saves the registers (XGETBV).
bool has_avx512_bf16() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16");
}

bool has_avx512_vnni() {
  __builtin_cpu_init();
  return has_avx512_bf16() && __builtin_cpu_supports("avx512vnni");
}

bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

}  // namespace spillway::cpu

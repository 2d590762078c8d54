#pragma once

#include <pthread.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace spillway {

// Numbers of CPUs as the kernel gives them, ascending, each once.
using CpuList = std::vector<uint32_t>;

inline constexpr uint32_t kCpuMax = 65535;

// The list format of cpuset(7): numbers and ranges between commas, "0-3,8", in any order. kInvalidArgument quotes what
// is neither; an empty list is one.
Result<CpuList> parse_cpu_list(std::string_view text);
std::string cpu_list_text(const CpuList& cpus);  // "0-3,8"

// Those that the calling thread may run on (sched_getaffinity(2)).
CpuList allowed_cpus();
// The calling thread, and those that it makes from then on, run on these only. SetupError naming those of `cpus` that
// this process may not use, beside what it may: judged by the affinity at the call.
void run_on(const CpuList& cpus);
void check_allowed(const CpuList& cpus);                 // the same error, and nothing else
bool try_run_on(const CpuList& cpus, pthread_t thread);  // another thread; false: it runs on those it ran on before

// The calling thread runs on `cpus` while this lives, and a process forked from it for ever; empty: changes nothing.
class RunsOn {
 public:
  explicit RunsOn(const CpuList& cpus);  // throws as run_on()
  ~RunsOn();
  RunsOn(const RunsOn&) = delete;
  RunsOn& operator=(const RunsOn&) = delete;

 private:
  CpuList before_;  // empty: nothing was changed
};

}  // namespace spillway

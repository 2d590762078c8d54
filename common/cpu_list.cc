#include "common/cpu_list.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iterator>
#include <optional>

#include "common/check.h"
#include "common/quote.h"

namespace spillway {
namespace {

std::optional<uint32_t> cpu_number(std::string_view text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool good = error == std::errc() && end == text.data() + text.size() && number <= kCpuMax;
  return good ? std::optional(number) : std::nullopt;
}

// Of as many CPUs as the highest of `cpus`, and of 1,024 at least.
std::vector<cpu_set_t> cpu_mask(const CpuList& cpus) {
  std::vector<cpu_set_t> mask(cpus.back() / CPU_SETSIZE + 1);
  for (const uint32_t cpu : cpus) CPU_SET_S(cpu, mask.size() * sizeof(cpu_set_t), mask.data());
  return mask;
}

}  // namespace

Result<CpuList> parse_cpu_list(std::string_view text) {
  CpuList cpus;
  for (size_t at = 0; at <= text.size();) {
    const std::string_view item = text.substr(at, std::min(text.find(',', at), text.size()) - at);
    const size_t dash = item.find('-');
    const std::optional<uint32_t> first = cpu_number(item.substr(0, dash));
    const std::optional<uint32_t> last = dash == item.npos ? first : cpu_number(item.substr(dash + 1));
    if (!first || !last || *first > *last)
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} is no list of CPUs such as 0-3,8 (numbers up to {})", quote_foreign(text), kCpuMax));
    for (uint32_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
    std::ranges::sort(cpus);  // here, so that no list of repeated ranges grows without bound
    cpus.erase(std::ranges::unique(cpus).begin(), cpus.end());
    at += item.size() + 1;
  }
  return cpus;
}

std::string cpu_list_text(const CpuList& cpus) {
  std::string text;
  for (size_t first = 0, next = 0; first < cpus.size(); first = next) {
    for (next = first + 1; next < cpus.size() && cpus[next] == cpus[next - 1] + 1; ++next) {
    }
    text += fmt::format("{}{}", text.empty() ? "" : ",", cpus[first]);
    if (next - first > 1) text += fmt::format("-{}", cpus[next - 1]);
  }
  return text;
}

CpuList allowed_cpus() {
  for (size_t masks = 1; masks <= (kCpuMax + 1) / CPU_SETSIZE; masks *= 2) {  // too small a buffer is EINVAL
    std::vector<cpu_set_t> mask(masks);
    const size_t bytes = masks * sizeof(cpu_set_t);
    if (::sched_getaffinity(0, bytes, mask.data()) == 0) {
      CpuList cpus;
      for (uint32_t cpu = 0; cpu < masks * CPU_SETSIZE; ++cpu)
        if (CPU_ISSET_S(cpu, bytes, mask.data())) cpus.push_back(cpu);
      return cpus;
    }
    if (errno != EINVAL) break;
  }
  return {0};
}

bool try_run_on(const CpuList& cpus, pthread_t thread) {
  CHECK(!cpus.empty());
  const std::vector<cpu_set_t> mask = cpu_mask(cpus);
  return ::pthread_setaffinity_np(thread, mask.size() * sizeof(cpu_set_t), mask.data()) == 0;
}

RunsOn::RunsOn(const CpuList& cpus) {
  if (cpus.empty()) return;
  const CpuList before = allowed_cpus();
  run_on(cpus);
  before_ = before;
}

RunsOn::~RunsOn() {
  if (before_.empty()) return;
  (void)try_run_on(before_, ::pthread_self());  // was in force: fails only if CPUs went
}

void check_allowed(const CpuList& cpus) {
  const CpuList allowed = allowed_cpus();
  CpuList lacking;
  std::ranges::set_difference(cpus, allowed, std::back_inserter(lacking));
  if (!lacking.empty())
    throw SetupError(fmt::format("CPU {} cannot be used here: this process may run on {} (affinity, cpuset)",
                                 cpu_list_text(lacking), cpu_list_text(allowed)));
}

void run_on(const CpuList& cpus) {
  CHECK(!cpus.empty());
  check_allowed(cpus);
  const std::vector<cpu_set_t> mask = cpu_mask(cpus);
  if (::sched_setaffinity(0, mask.size() * sizeof(cpu_set_t), mask.data()) != 0)
    throw SetupError(fmt::format("cannot run on CPU {}: {}", cpu_list_text(cpus), std::strerror(errno)));
}

}  // namespace spillway

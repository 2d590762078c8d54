#include "cli/bench_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/check.h"

namespace spillway {
namespace {

double share_of_peak(const BenchLine& line, const BenchMachine& machine) {
  return line.flops_per_second / machine.flops_per_second;
}
double share_of_read(const BenchLine& line, const BenchMachine& machine) {
  return line.bytes_per_second / machine.weights_bytes_per_second;
}

std::string format_table(const std::vector<BenchLine>& lines, const BenchMachine& machine) {
  std::string text = fmt::format(
      "{}, {}, {} threads, same run: multiply-add peak {:.0f} GFLOP/s; read bandwidth {:.1f} GB/s, {:.1f} GB/s\n"
      "over as many bytes as the weights have (the limit of \"of read\")\n"
      "threads of a step: {}\n"
      "{:<16}{:>6}{:>11}{:>22}{:>11}{:>9}{:>9}{:>9}\n",
      machine.cpu, machine.backend, machine.threads, machine.flops_per_second / 1e9,
      machine.memory_bytes_per_second / 1e9, machine.weights_bytes_per_second / 1e9, machine.step_threads, "", "batch",
      "tok/s", "lowest - highest", "GFLOP/s", "of peak", "GB/s", "of read");
  for (const BenchLine& line : lines)
    text += fmt::format("{:<16}{:>6}{:>11.1f}{:>22}{:>11.1f}{:>8.1f}%{:>9.2f}{:>8.1f}%\n", line.what.name(),
                        line.what.batch, line.median(),
                        fmt::format("{:.1f} - {:.1f}", line.tokens_per_second.front(), line.tokens_per_second.back()),
                        line.flops_per_second / 1e9, 100 * share_of_peak(line, machine), line.bytes_per_second / 1e9,
                        100 * share_of_read(line, machine));
  return text;
}

std::string format_json(const std::vector<BenchLine>& lines, const BenchMachine& machine) {
  nlohmann::json report{{"cpu", machine.cpu},
                        {"backend", machine.backend},
                        {"threads", machine.threads},
                        {"step_threads", machine.step_threads},
                        {"peak_flops_per_second", machine.flops_per_second},
                        {"read_bytes_per_second", machine.memory_bytes_per_second},
                        {"weights_read_bytes_per_second", machine.weights_bytes_per_second},
                        {"lines", nlohmann::json::array()}};
  for (const BenchLine& line : lines)
    report["lines"].push_back({{"name", line.what.name()},
                               {"tokens", line.what.tokens},
                               {"depth", line.what.depth},
                               {"batch", line.what.batch},
                               {"tokens_per_second", line.median()},
                               {"all_tokens_per_second", line.tokens_per_second},
                               {"flops_per_second", line.flops_per_second},
                               {"bytes_per_second", line.bytes_per_second},
                               {"share_of_peak", share_of_peak(line, machine)},
                               {"share_of_read", share_of_read(line, machine)}});
  return report.dump(2) + "\n";
}

// The columns of llama-bench's CSV that mean the same here, under its names where it has one.
std::string format_csv(const std::vector<BenchLine>& lines, const BenchMachine& machine) {
  std::string text =
      "test,n_prompt,n_gen,n_depth,n_batch,cpu_info,backends,n_threads,median_ts,min_ts,max_ts,flops_per_second,"
      "share_of_peak,bytes_per_second,share_of_read\n";
  for (const BenchLine& line : lines) {
    const bool prompt = line.what.kind == BenchCase::Kind::kPrompt;
    text += fmt::format("{},{},{},{},{},\"{}\",{},{},{:.3f},{:.3f},{:.3f},{:.6g},{:.4f},{:.6g},{:.4f}\n",
                        line.what.name(), prompt ? line.what.tokens : 0, prompt ? 0 : line.what.tokens, line.what.depth,
                        line.what.batch, machine.cpu, machine.backend, machine.threads, line.median(),
                        line.tokens_per_second.front(), line.tokens_per_second.back(), line.flops_per_second,
                        share_of_peak(line, machine), line.bytes_per_second, share_of_read(line, machine));
  }
  return text;
}

}  // namespace

std::string format_bench(const std::string& format, const std::vector<BenchLine>& lines, const BenchMachine& machine) {
  if (format == "table") return format_table(lines, machine);
  if (format == "json") return format_json(lines, machine);
  CHECK(format == "csv");
  return format_csv(lines, machine);
}

}  // namespace spillway

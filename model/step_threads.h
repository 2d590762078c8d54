#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/clock.h"

namespace spillway {

// How many threads share a step, by its rows. A decode step of few rows waits for memory, which one core may saturate,
// and pays for every barrier; a prefill chunk computes. Where one ends and the other begins depends on machine, model
// and instruction set, so it is measured (measure_step_threads) unless it is fixed.
class StepThreads {
 public:
  struct Tried {
    uint32_t threads = 1;
    Duration layer{};  // time of one layer
  };
  struct Phase {
    uint32_t rows = 1;         // measured with as many
    uint32_t threads = 1;      // chosen
    std::vector<Tried> tried;  // descending in threads
  };
  explicit StepThreads(uint32_t fixed) : phases_{{.rows = 1, .threads = fixed, .tried = {}}} {}
  // REQUIRES at least one, ascending in rows.
  explicit StepThreads(std::vector<Phase> phases);

  // Of the phase whose rows are nearest, as a ratio.
  uint32_t of(uint32_t rows) const;
  const std::vector<Phase>& phases() const { return phases_; }
  // "1 row: 1 thread (0.35 ms a layer; 2: 0.41); 64 rows: 2 threads (0.61 ms a layer; 1: 1.20)"; where it is fixed
  // "2 threads".
  std::string text() const;

 private:
  std::vector<Phase> phases_;
};

// The fewest threads whose time is within a twentieth of the shortest: what they gain is not worth a core that others
// may use. REQUIRES `tried` not empty.
uint32_t fewest_good_threads(const std::vector<StepThreads::Tried>& tried);

// The same for steps of many rows: the most threads whose time is within a tenth of the shortest. Such a step computes,
// so every core counts; where they seem to make no difference others had the cores while it was measured.
uint32_t most_good_threads(const std::vector<StepThreads::Tried>& tried);

}  // namespace spillway

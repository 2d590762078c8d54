#pragma once

#include "kernels/backend.h"
#include "kv/block.h"
#include "model/decoder.h"
#include "model/step_threads.h"

namespace spillway {

// Runs layers of real steps on the model's own weights, of 1, 8 and 64 rows behind 512 tokens of KV, with different
// numbers of threads, and gives the best for each. Before there are sequences: it overwrites the first slot of `kv`
// (whose first row zeroes it). Costs about 25 ms for each of the three, more where layers are long: each number that is
// not dropped is tried three times. Where a layer takes more than 25 ms with all threads, twice, it is not tried with
// fewer: work that long is rarely better with fewer, and a choice from a sample or two would be chance.
//
// Right on a machine whose cores are shared: the numbers are tried in turn, so a disturbance meets all alike; of up to
// nine samples of each the lower quartile counts (of three the best), so neither one lucky moment nor a disturbance of
// most of them decides; in every other round threads keep to cores of their own (Backend::hold_threads_apart), in the
// others Linux moves them out of others' way; and of nearly equal ones the fewest threads win. A number is dropped once
// two samples are far behind. What it gets wrong costs a share of the speed, never a bit.
StepThreads measure_step_threads(Backend& backend, Decoder& decoder, const SlotArena& kv);

// 1, 2, 3, 4, 6, 8, 12, ... and `most`, descending.
std::vector<uint32_t> thread_counts(uint32_t most);

}  // namespace spillway

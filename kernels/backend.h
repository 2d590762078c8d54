#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/gemm.h"
#include "kernels/op_counters.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_append.h"
#include "kernels/sample.h"
#include "kernels/tensor.h"
#include "kv/block.h"

namespace spillway {

// Tensor operations, in order, on one device. Owned and called by the compute thread. CpuBackend has finished an
// operation when the call returns, a GPU backend has enqueued it; callers see one rule: a result exists, and its inputs
// may be reused, once a Ticket recorded after it is reached.
class Backend {
 public:
  struct Ticket {
    uint64_t position = 0;
  };
  virtual ~Backend() = default;

  // Start-up only; memory lives as long as the Backend. Throws SetupError naming bytes asked and bytes free.
  virtual std::span<std::byte> allocate(size_t bytes) = 0;  // 4096-aligned, zeroed
  // Into this device's own order, at `into`: host memory, 64-aligned and zeroed, that stays until the Backend's last
  // operation. REQUIRES equal cols and into.size() == packed_bytes(tensors, order); throws SetupError when a shape is
  // not supported.
  virtual Weight pack(std::span<const FileTensor> tensors, PackOrder order, std::span<std::byte> into) = 0;
  Weight pack(std::span<const FileTensor> tensors, PackOrder order) {  // into memory of this Backend
    return pack(tensors, order, allocate(packed_bytes(tensors, order)));
  }
  // Names the packed order: under one name pack() leaves the same bytes for the same tensors, on any machine and with
  // any thread count, and adopt() takes them back. Letters, digits and dashes.
  virtual std::string_view pack_format() const = 0;
  virtual size_t packed_bytes(std::span<const FileTensor> tensors, PackOrder order) const = 0;
  // The Weight that pack() would make, over host memory where it left its bytes before (64-aligned; stays until the
  // Backend's last operation). REQUIRES packed.size() == packed_bytes(tensors, order); throws as pack().
  virtual Weight adopt(std::span<const FileTensor> tensors, PackOrder order, std::span<const std::byte> packed) = 0;

  // Threads that may share an operation, and how many do from here on, at first all: which is fastest depends on the
  // step (StepThreads), no bit of a result does. A device that shares out its work itself has one.
  // REQUIRES 1 <= count <= threads().
  virtual uint32_t threads() const = 0;
  virtual void use_threads(uint32_t count) = 0;
  // By the thread that calls the operations from then on: it runs where this backend's threads shall.
  virtual void enter_compute_thread() = 0;
  // For measuring: the calling thread and those that share its operations each keep to a core, until told otherwise.
  virtual void hold_threads_apart(bool apart) = 0;
  virtual bool threads_pinned() const = 0;  // so they will be apart once enter_compute_thread() was called

  virtual Ticket record() = 0;              // after all that was enqueued so far
  virtual bool reached(Ticket ticket) = 0;  // CPU: always

  virtual NumericsClass numerics() const = 0;
  virtual std::string_view name() const = 0;  // "cpu/scalar", "cpu/avx2", "cpu/avx512bf16"
  virtual const OpCounters& counters() const = 0;
  virtual void reset_counters() = 0;

  // Contract in kernels/<operation>.h, body in <device>/<operation>, cases in tests/kernels/<operation>_test.
  virtual void embed(const EmbedArgs& args) = 0;
  virtual void rms_norm(const RmsNormArgs& args) = 0;
  virtual void gemm(const GemmArgs& args) = 0;
  virtual void rope_append(const RopeAppendArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void sample(const SampleArgs& args) = 0;
};

}  // namespace spillway

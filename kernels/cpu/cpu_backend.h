#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/isa_level.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/numerics.h"

namespace spillway::cpu {

// The reference backend. Owned by the compute thread, which takes part in every operation beside `threads` - 1 workers.
// KV parts are in encoding cpu_tiled (kernels/cpu/kv_tile.h). Shapes: head_dim even, up to 256; heads / kv_heads up to
// 64; block_tokens a multiple of 16 that divides kSplitTokens.
class CpuBackend final : public Backend {
 public:
  // REQUIRES a level that is available with this precision. Threads and `cpus` as for WorkerPool; throws as it does. KV
  // blocks of all calls are of precision.kv.
  CpuBackend(const IsaLevel& isa, const Precision& precision, uint32_t threads, const CpuList& cpus = {});
  ~CpuBackend() override;

  std::span<std::byte> allocate(size_t bytes) override;
  using Backend::pack;
  Weight pack(std::span<const FileTensor> tensors, PackOrder order, std::span<std::byte> into) override;
  std::string_view pack_format() const override { return "cpu-panels-1"; }
  size_t packed_bytes(std::span<const FileTensor> tensors, PackOrder order) const override;
  Weight adopt(std::span<const FileTensor> tensors, PackOrder order, std::span<const std::byte> packed) override;
  uint32_t threads() const override { return pool_.thread_count(); }
  void use_threads(uint32_t count) override { pool_.use_threads(count); }
  void enter_compute_thread() override { pool_.pin_owner(); }
  void hold_threads_apart(bool apart) override { pool_.hold_apart(apart); }
  bool threads_pinned() const override { return pool_.pinned(); }
  Ticket record() override { return Ticket{}; }
  bool reached(Ticket) override { return true; }
  NumericsClass numerics() const override {
    return isa_.numerics[static_cast<size_t>(precision_.activations)][static_cast<size_t>(precision_.kv)];
  }
  std::string_view name() const override { return name_; }
  const OpCounters& counters() const override { return counters_; }
  void reset_counters() override { counters_ = OpCounters{}; }

  void embed(const EmbedArgs& args) override;
  void rms_norm(const RmsNormArgs& args) override;
  void gemm(const GemmArgs& args) override;
  void rope_append(const RopeAppendArgs& args) override;
  void attention(const AttentionArgs& args) override;
  void sample(const SampleArgs& args) override;

 private:
  bool takes_blocks(PanelFormat format) const { return format != PanelFormat::kBf16 && codes_.block_bytes > 0; }
  void prepare(const uint16_t* values, uint32_t blocks);
  void multiply(const GemmArgs& args, uint32_t row_first, uint32_t rows);

  const IsaLevel isa_;
  const Precision precision_;
  const std::string name_;
  WorkerPool pool_;
  OpCounters counters_;
  std::vector<std::span<std::byte>> mappings_;
  std::vector<AttentionScratch> scratch_;  // one per thread
  SharedTiles shared_tiles_;
  struct alignas(64) PanelScratch {
    std::byte bytes[kPanelScratchBytes];
  };
  std::vector<PanelScratch> panel_scratch_;  // one per thread
  const CodesProduct codes_;
  // Blocks of as many rows of a product as fit; none where it takes none. Not written before, so that what no product
  // of this model fills takes no memory.
  const size_t prepared_bytes_;
  const std::unique_ptr<std::byte[]> prepared_;
};

}  // namespace spillway::cpu

#include "kernels/make_backend.h"

#include "kernels/cpu/machine_peak.h"
#include "tests/kernels/backend_cases.h"

namespace spillway {
namespace {

using MakeBackendTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(MakeBackendTest);

std::string error_of(const auto& body) {
  try {
    body();
  } catch (const SetupError& error) {
    return error.what();
  }
  return "";
}

TEST_P(MakeBackendTest, NamesItsLevelAndPrecision) {
  EXPECT_EQ(make()->name(), "cpu/" + GetParam());
  EXPECT_EQ(make_backend({.isa = GetParam(), .threads = 1, .precision = {.kv = KvDtype::kInt8}})->name(),
            "cpu/" + GetParam() + " kv8");
  if (const auto levels = available_isa_levels({Activations::kInt8}); std::ranges::count(levels, GetParam()) > 0) {
    EXPECT_EQ(make_backend({.isa = GetParam(), .threads = 1, .precision = {Activations::kInt8}})->name(),
              "cpu/" + GetParam() + " act8");
  }
}

TEST_P(MakeBackendTest, MemoryIsAlignedZeroedAndApart) {
  const auto backend = make();
  const std::span<std::byte> a = backend->allocate(1), b = backend->allocate(3'000'000);
  EXPECT_EQ(a.size(), 1u);
  EXPECT_EQ(b.size(), 3'000'000u);
  for (const std::span<std::byte> memory : {a, b}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % 4096, 0u);
    EXPECT_TRUE(std::all_of(memory.begin(), memory.end(), [](std::byte byte) { return byte == std::byte{}; }));
  }
  std::fill(b.begin(), b.end(), std::byte{1});
  EXPECT_EQ(a[0], std::byte{});
}

TEST_P(MakeBackendTest, TooMuchMemoryIsRefusedWithNumbers) {
  const auto backend = make();
  const std::string error = error_of([&] { backend->allocate(size_t{1} << 50); });
  EXPECT_NE(error.find("1125899906842624 bytes asked"), std::string::npos) << error;
  EXPECT_NE(error.find("bytes available"), std::string::npos) << error;
}

TEST(MakeBackend, AutoIsTheBestLevelOfThisMachine) {
  EXPECT_EQ(make_backend({})->name(), "cpu/" + available_isa_levels().back());
  EXPECT_EQ(available_isa_levels().front(), "scalar");
}

TEST(MakeBackend, LevelsAndPrecisionsRoundDifferentlySoTheyAreDifferentClasses) {
  std::vector<NumericsClass> seen;
  for (const std::string& level : available_isa_levels()) {
    for (const KvDtype kv : {KvDtype::kBf16, KvDtype::kInt8}) {
      const NumericsClass numerics = make_backend({level, 1, {}, {.kv = kv}})->numerics();
      EXPECT_EQ(std::count(seen.begin(), seen.end(), numerics), 0);
      EXPECT_EQ(make_backend({level, 2, {}, {.kv = kv}})->numerics(), numerics);
      seen.push_back(numerics);
    }
  }
  for (const std::string& level : available_isa_levels({Activations::kInt8})) {
    for (const KvDtype kv : {KvDtype::kBf16, KvDtype::kInt8}) {
      seen.push_back(make_backend({.isa = level, .threads = 1, .precision = {Activations::kInt8, kv}})->numerics());
      EXPECT_EQ(std::count(seen.begin(), seen.end(), seen.back()), 1);
    }
  }
}

TEST(MakeBackend, UnknownLevelNamesWhatThereIs) {
  const std::string error = error_of([] { make_backend({"sse9", 1}); });
  EXPECT_NE(error.find("sse9"), std::string::npos) << error;
  EXPECT_NE(error.find("scalar"), std::string::npos) << error;
  EXPECT_NE(error_of([] { make_backend({"auto", 100'000}); }).find("100000"), std::string::npos);
}

TEST(MachinePeak, IsWithinWhatAnyCoreCanDo) {
  const MachinePeak peak = measure_machine_peak(1);
  EXPECT_GT(peak.f32_flops_per_s, 1e8);
  EXPECT_LT(peak.f32_flops_per_s, 1e12);  // 64 flop a cycle at 6 GHz is 0.4e12
  EXPECT_LT(peak.bf16_flops_per_s, 2e12);
  EXPECT_EQ(peak.bf16_flops_per_s > 0, available_isa_levels().back() == "avx512bf16");
  EXPECT_LT(peak.int8_ops_per_s, 4e12);
  EXPECT_EQ(peak.int8_ops_per_s > 0, available_isa_levels({Activations::kInt8}).back() == "avx512bf16");
  EXPECT_GT(peak.read_bytes_per_s, 1e8);
  EXPECT_LT(peak.read_bytes_per_s, 1e12);
}

}  // namespace
}  // namespace spillway

#include "cli/calibration_turn.h"

#include <gtest/gtest.h>

#include <optional>

#include "cli/run_directory.h"

namespace spillway {
namespace {

constexpr Duration kShort = std::chrono::milliseconds(10), kLong = std::chrono::seconds(60);

TEST(CalibrationTurn, OneAtATimeInARun) {
  const RunDirectory run, other_run;
  std::optional<CalibrationTurn> first(run.path());
  EXPECT_TRUE(first->came());
  EXPECT_FALSE(CalibrationTurn(run.path(), kShort).came()) << "it goes on without, soon";
  EXPECT_TRUE(CalibrationTurn(other_run.path(), kShort).came());
  first.reset();
  EXPECT_TRUE(CalibrationTurn(run.path(), kShort).came());
}

TEST(CalibrationTurn, ComesWhenAllHaveLoaded) {
  const RunDirectory run;
  std::optional<LoadingShare> one(run.path()), other(run.path());
  EXPECT_FALSE(CalibrationTurn(run.path(), kShort).came());
  one.reset();
  EXPECT_FALSE(CalibrationTurn(run.path(), kShort).came());
  other.reset();
  std::optional<CalibrationTurn> turn(std::in_place, run.path(), kShort);
  EXPECT_TRUE(turn->came());
  const LoadingShare late(run.path());  // goes on without
  turn.reset();
  EXPECT_TRUE(CalibrationTurn(run.path(), kShort).came());
}

TEST(CalibrationTurn, NoFolderNoWait) { EXPECT_FALSE(CalibrationTurn("/nowhere/at/all", kLong).came()); }

}  // namespace
}  // namespace spillway

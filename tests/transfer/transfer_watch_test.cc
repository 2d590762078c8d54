#include "transfer/transfer_watch.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

using namespace std::chrono_literals;

struct Watched {
  TransferWatch watch{5s};
  TimePoint now{1h};
  bool look(Duration later, bool has_work = true) { return watch.look(now += later, has_work); }
};

TEST(TransferWatch, AsksOnlyWhereThereIsWorkAndNothingIsHeard) {
  Watched w;
  EXPECT_FALSE(w.look(1h, false));
  EXPECT_EQ(w.watch.next_deadline(), kNever);
  EXPECT_FALSE(w.look(0s));
  EXPECT_EQ(w.watch.next_deadline() - w.now, 1s);
  EXPECT_FALSE(w.look(900ms));
  w.watch.heard(w.now);
  EXPECT_FALSE(w.look(900ms));
  EXPECT_TRUE(w.look(100ms));
  EXPECT_FALSE(w.look(100ms)) << "one question at a time";
  w.watch.answered(w.now);
  EXPECT_FALSE(w.look(100ms));
  EXPECT_EQ(w.watch.stalled_ms(), 0u);
  EXPECT_FALSE(w.look(0s, false));
  EXPECT_EQ(w.watch.next_deadline(), kNever);
}

TEST(TransferWatch, AQuestionWithoutAnswerIsAStallUntilSomethingIsHeard) {
  Watched w;
  w.look(0s);
  EXPECT_TRUE(w.look(1s));
  EXPECT_EQ(w.watch.next_deadline() - w.now, 4s);
  EXPECT_FALSE(w.look(4s - 1ns));
  EXPECT_EQ(w.watch.stalled_ms(), 0u);
  w.look(1ns, false);  // the work went elsewhere, the question stands
  EXPECT_EQ(w.watch.stalled_ms(), 5000u);
  EXPECT_EQ(w.watch.next_deadline() - w.now, 1s);
  w.look(2500ms, false);
  EXPECT_EQ(w.watch.stalled_ms(), 7000u);
  EXPECT_EQ(w.watch.next_deadline() - w.now, 500ms);
  w.watch.heard(w.now);
  EXPECT_EQ(w.watch.stalled_ms(), 0u);
  EXPECT_FALSE(w.look(2s)) << "the old question is not answered";
  w.watch.answered(w.now);
  w.look(0s, false);
  EXPECT_EQ(w.watch.next_deadline(), kNever);
}

}  // namespace
}  // namespace spillway

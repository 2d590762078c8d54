#include "common/mailbox.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/bounded_vector.h"
#include "common/thread.h"

namespace spillway {
namespace {

TEST(Mailbox, KeepsOrderAcrossThreads) {
  EventFdWaker waker;
  Mailbox<int> mailbox(1000, waker);
  std::vector<int> taken;
  {
    const Thread pusher("pusher", [&] {
      for (int value = 0; value < 1000; ++value) mailbox.push(value);
    });
    while (taken.size() < 1000) {
      waker.wait(-1);
      while (auto value = mailbox.take()) taken.push_back(*value);
    }
  }
  for (int value = 0; value < 1000; ++value) EXPECT_EQ(taken[static_cast<size_t>(value)], value);
}

TEST(Mailbox, RefusesBeyondItsBound) {
  EventFdWaker waker;
  Mailbox<std::string> mailbox(2, waker);
  EXPECT_TRUE(mailbox.try_push("a"));
  EXPECT_TRUE(mailbox.try_push("b"));
  EXPECT_FALSE(mailbox.try_push("c"));
  EXPECT_EQ(mailbox.take(), "a");
  EXPECT_TRUE(mailbox.try_push("d"));
  EXPECT_EQ(mailbox.take(), "b");
  EXPECT_EQ(mailbox.take(), "d");
  EXPECT_EQ(mailbox.take(), std::nullopt);
}

TEST(MailboxDeathTest, PushWithoutCreditIsAProgrammerError) {
  EventFdWaker waker;
  Mailbox<int> mailbox(1, waker);
  mailbox.push(1);
  EXPECT_DEATH(mailbox.push(2), "CHECK failed");
}

TEST(BoundedVectorDeathTest, GrowingPastTheBoundIsAProgrammerError) {
  BoundedVector<int> items(1);
  items.push_back(1);
  EXPECT_EQ(items.room(), 0u);
  EXPECT_DEATH(items.push_back(2), "CHECK failed");
}

TEST(CheckedCastDeathTest, ValueThatDoesNotFitIsAProgrammerError) {
  EXPECT_EQ(checked_cast<uint8_t>(255), 255);
  EXPECT_DEATH(static_cast<void>(checked_cast<uint8_t>(256)), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(checked_cast<uint32_t>(-1)), "CHECK failed");
}

TEST(EventFdWaker, WakeBeforeSleepIsRemembered) {
  EventFdWaker waker;
  waker.wake();
  waker.wait(-1);  // returns at once, or the test times out
}

}  // namespace
}  // namespace spillway

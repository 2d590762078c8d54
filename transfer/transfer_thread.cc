#include "transfer/transfer_thread.h"

#include <poll.h>

#include <array>
#include <atomic>
#include <optional>
#include <utility>

#include "common/thread.h"
#include "common/waker.h"

namespace spillway {

struct TransferThread::State {
  State(std::unique_ptr<KvTransport> transport, const SlotArena& arena, const Limits& limits,
        Mailbox<TransferEvent>& events_to, TransferFault fault_at)
      : jobs(limits.jobs_max, waker),
        events(events_to),
        fault(fault_at),
        endpoint(transport->endpoint().begin(), transport->endpoint().end()),
        worker(std::move(transport), arena, limits),
        thread("transfer", [this] { run(); }) {}
  ~State() {
    stopping.store(true, std::memory_order_release);
    waker.wake();
  }

  void run() {
    std::vector<TransferEvent> answers;
    for (;;) {
      waker.drain();
      // After the drain, which may have taken the wake-up of a stop: it stored its flag before that.
      if (stopping.load(std::memory_order_acquire)) return;
      while (std::optional<TransferJob> job = jobs.take()) {
        const bool moves = std::holds_alternative<OpenTransfer>(*job) || std::holds_alternative<SendParts>(*job);
        if (moves && fault.points != nullptr) fault.points->pass(fault.name);
        worker.submit(std::move(*job));
      }
      const size_t done = worker.turn(answers);
      for (TransferEvent& answer : answers) events.push(answer);
      answers.clear();
      if (done > 0) continue;
      std::array<pollfd, 2> sources = {pollfd{worker.ready_fd(), POLLIN, 0}, pollfd{waker.fd(), POLLIN, 0}};
      ::poll(sources.data(), sources.size(), -1);
    }
  }

  std::atomic<bool> stopping = false;
  EventFdWaker waker;
  Mailbox<TransferJob> jobs;
  Mailbox<TransferEvent>& events;
  const TransferFault fault;
  const std::vector<std::byte> endpoint;
  TransferWorker worker;
  Thread thread;  // last: it uses all of the above, and joins before they end
};

TransferThread::TransferThread(std::unique_ptr<KvTransport> transport, const SlotArena& arena, const Limits& limits,
                               Mailbox<TransferEvent>& events, TransferFault fault)
    : state_(std::make_unique<State>(std::move(transport), arena, limits, events, fault)) {}

TransferThread::~TransferThread() = default;

void TransferThread::submit(TransferJob job) { state_->jobs.push(std::move(job)); }

const std::vector<std::byte>& TransferThread::endpoint() const { return state_->endpoint; }

}  // namespace spillway

#pragma once

#include <utility>
#include <vector>

#include "common/clock.h"
#include "engine/executor.h"
#include "simulator/faults.h"
#include "transfer/messages.h"
#include "transfer/transfer_job.h"

namespace spillway {

// Stands between the parts of a World, sees what passes and may change it: a test watches with it, or breaks the
// protocol on purpose. As it is, everything passes unchanged. It acts at the seams only; nodes know nothing of it.
class Interceptor {
 public:
  virtual ~Interceptor() = default;

  // A message reaches a core.
  virtual void deliver(ProcessId to, ProcessId from, Message message, std::vector<Message>& out) {
    static_cast<void>(to), static_cast<void>(from);
    out.push_back(std::move(message));
  }
  // A job leaves a core for the transfer worker. What is put into `answers` goes to the core at once.
  struct Job {
    Duration delay{};
    TransferJob job;
  };
  virtual void job(ProcessId process, TransferJob job, std::vector<Job>& out, std::vector<TransferEvent>& answers) {
    static_cast<void>(process), static_cast<void>(answers);
    out.push_back({Duration{0}, std::move(job)});
  }
  // The transfer worker's answer reaches a core.
  virtual void answer(ProcessId process, TransferEvent event, TimePoint now, std::vector<TransferEvent>& out) {
    static_cast<void>(process), static_cast<void>(now);
    out.push_back(std::move(event));
  }
  // A step leaves a core for the executor.
  virtual void plan(ProcessId process, StepPlan& plan) { static_cast<void>(process), static_cast<void>(plan); }
  virtual void computed(ProcessId process, const ComputeEvent& event, TimePoint now) {
    static_cast<void>(process), static_cast<void>(event), static_cast<void>(now);
  }
  // False: this core's deadlines pass unnoticed.
  virtual bool expires(ProcessId process) {
    static_cast<void>(process);
    return true;
  }
};

}  // namespace spillway

#pragma once

#include <cstdint>
#include <variant>

#include "common/clock.h"
#include "common/ids.h"
#include "gateway/request_table.h"

namespace spillway {

// A place in the world's list of processes; it outlives the process, whose restart is a new BootId.
enum class ProcessId : uint32_t {};

// What may happen to one control message.
enum class MessageFault : uint8_t {
  kLose,
  kDuplicate,  // a copy comes a little later
  kLateCopy,   // a copy comes seconds later, when all is over
  kReorder,    // it comes later than those sent after it
  kLate,       // it comes seconds later
};

// What happens at a given time.
struct ClientArrives {
  GenerateRequest work;
  bool too_long = false;  // fits no node
  uint32_t gateway = 0;   // index
};
struct ClientLeaves {
  RequestId request;
};
struct ProcessDies {
  ProcessId process{};
};
struct ProcessStarts {
  ProcessId process{};
};
struct ConnectionBreaks {  // control; both live on
  ProcessId a{}, b{};
};
struct BulkBreaks {  // all bulk links of one process
  ProcessId process{};
};
struct BulkCorrupts {  // the next frame that this process sends
  ProcessId process{};
};
struct BulkStalls {  // one peer's frames to this process are held up
  ProcessId process{};
  Duration duration{};
};
struct BulkResumes {
  ProcessId process{};
};
struct TransferHangs {  // a node's transfer thread does nothing for so long; its loop goes on
  ProcessId process{};
  Duration duration{};
};
struct StepStalls {  // a node's compute thread does nothing for so long; its loop goes on
  ProcessId process{};
  Duration duration{};
};
struct NodeDrains {  // is asked to leave in order; once it has, it comes back after so long
  ProcessId process{};
  Duration away{};
};
using Happening = std::variant<ClientArrives, ClientLeaves, ProcessDies, ProcessStarts, ConnectionBreaks, BulkBreaks,
                               BulkCorrupts, BulkStalls, BulkResumes, TransferHangs, StepStalls, NodeDrains>;

}  // namespace spillway

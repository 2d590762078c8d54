#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/ids.h"
#include "transfer/messages.h"

namespace spillway {

// The live attempts of one node, at most one per request, found by request, transfer or engine sequence. `Record` has
// `Attempt attempt` and `std::optional<SequenceId> sequence`; its address is stable until erase(). Loop thread.
template <class Record>
class AttemptTable {
 public:
  explicit AttemptTable(uint32_t attempts_max) : attempts_max_(attempts_max) { CHECK(attempts_max > 0); }

  bool full() const { return records_.size() >= attempts_max_; }
  uint32_t size() const { return static_cast<uint32_t>(records_.size()); }

  // REQUIRES: !full(); request, transfer and sequence are in no record.
  Record& insert(Record record) {
    CHECK(!full() && find(record.attempt.request) == nullptr && find(record.attempt.transfer) == nullptr);
    by_transfer_.emplace(record.attempt.transfer, record.attempt.request);
    if (record.sequence) CHECK(by_sequence_.emplace(*record.sequence, record.attempt.request).second);
    const RequestId request = record.attempt.request;
    return records_.emplace(request, std::move(record)).first->second;
  }
  Record* find(RequestId request) {
    const auto record = records_.find(request);
    return record == records_.end() ? nullptr : &record->second;
  }
  Record* find(TransferId transfer) { return by_index(by_transfer_, transfer); }
  Record* find(SequenceId sequence) { return by_index(by_sequence_, sequence); }
  // The record of exactly this attempt: same request, epoch and transfer.
  Record* find(const Attempt& attempt) {
    Record* const record = find(attempt.request);
    return record != nullptr && record->attempt == attempt ? record : nullptr;
  }
  // The record lives on without its sequence, whose id may now name another.
  void drop_sequence(Record& record) {
    CHECK(record.sequence && by_sequence_.erase(*record.sequence) == 1);
    record.sequence.reset();
  }
  void erase(Record& record) {
    if (record.sequence) drop_sequence(record);
    by_transfer_.erase(record.attempt.transfer);
    const RequestId request = record.attempt.request;
    CHECK(records_.erase(request) == 1);
  }
  // The requests whose record satisfies `wanted`, ascending: a copy, so that the caller may erase.
  template <class Wanted>
  std::vector<RequestId> select(Wanted&& wanted) const {
    std::vector<RequestId> requests;
    for (const auto& [request, record] : records_) {
      if (wanted(record)) requests.push_back(request);
    }
    return requests;
  }
  const std::map<RequestId, Record>& records() const { return records_; }

  void check_conservation() const {
    CHECK(records_.size() <= attempts_max_ && by_transfer_.size() == records_.size());
    size_t sequences = 0;
    for (const auto& [request, record] : records_) {
      CHECK(record.attempt.request == request && by_transfer_.at(record.attempt.transfer) == request);
      if (!record.sequence) continue;
      CHECK(by_sequence_.at(*record.sequence) == request);
      ++sequences;
    }
    CHECK(sequences == by_sequence_.size());
  }

 private:
  template <class Id>
  Record* by_index(const std::map<Id, RequestId>& index, Id id) {
    const auto entry = index.find(id);
    return entry == index.end() ? nullptr : find(entry->second);
  }

  uint32_t attempts_max_;
  std::map<RequestId, Record> records_;
  std::map<TransferId, RequestId> by_transfer_;
  std::map<SequenceId, RequestId> by_sequence_;
};

}  // namespace spillway

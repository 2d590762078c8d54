#pragma once

#include <cstdint>
#include <ctime>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "common/result.h"
#include "text/template_lexer.h"
#include "text/template_value.h"

namespace spillway {

// The bounds of one rendering.
inline constexpr uint64_t kTemplateStepsMax = 1'000'000;  // expressions and statements evaluated, items looped over
inline constexpr uint64_t kTemplateMemoryMax = uint64_t{64} << 20;  // bytes of all values made
inline constexpr size_t kTemplateOutputMax = size_t{16} << 20;      // bytes of the rendered text
inline constexpr uint32_t kTemplateDepthMax = 256;  // levels of an expression's tree, and of lists that are walked

// One rendering: what it may still spend, the values it made, its first error. Once failed it stays so, and whoever
// evaluates stops at the next spend(). One thread; lives as long as the values it keeps.
class TemplateRun {
 public:
  // `now`: what strftime_now() tells; null: templates have no such function. Outlives the run.
  explicit TemplateRun(const std::tm* now = nullptr) : now_(now) {}
  TemplateRun(const TemplateRun&) = delete;
  TemplateRun& operator=(const TemplateRun&) = delete;

  // Counts work done at `position`; false when the run has failed, before or by this.
  bool spend(TemplatePosition position, uint64_t steps);
  // As spend(): for a text of `bytes` searched for, or compared with, `other_bytes`; and for cutting it into characters
  // or pieces, each of which becomes a value.
  bool spend_scan(TemplatePosition position, uint64_t bytes, uint64_t other_bytes) {
    return spend(position, 1 + bytes * other_bytes / kScanBytesAStep);
  }
  bool spend_items(TemplatePosition position, uint64_t bytes) { return spend(position, 1 + bytes / kItemBytesAStep); }
  // Takes a new value in; undefined when memory is spent.
  TemplateValue keep(TemplatePosition position, std::string text);
  TemplateValue keep(TemplatePosition position, TemplateList list);
  TemplateValue keep(TemplatePosition position, TemplateDict dict);
  TemplateValue keep(TemplatePosition position, TemplateNamespace space);
  // Gives a namespace's attribute a value.
  void set(TemplatePosition position, TemplateNamespace& space, std::string_view name, const TemplateValue& value);

  // Records the first error; gives undefined, for `return run.fail(...)`.
  TemplateValue fail(TemplatePosition position, ErrorCode code, std::string_view what);
  TemplateValue fail(Error error);
  bool failed() const { return error_.has_value(); }
  const Error& error() const { return *error_; }  // REQUIRES: failed()

  // str(value). Fails, giving nothing, on lists and dictionaries: Python's repr() of them is not supported.
  std::string_view to_text(TemplatePosition position, const TemplateValue& value);
  // Python's ==. Spends a step an item. Fails on lists nested more than kTemplateDepthMax deep.
  bool equal(TemplatePosition position, const TemplateValue& left, const TemplateValue& right, uint32_t depth = 0);
  // False, having failed, when a value is nested so deep: whoever walks values recurses as deep.
  bool check_depth(TemplatePosition position, uint32_t depth);
  const std::tm* now() const { return now_; }

 private:
  // What takes about as long as evaluating an expression.
  static constexpr uint64_t kScanBytesAStep = 4096, kItemBytesAStep = 4;
  bool take_memory(TemplatePosition position, uint64_t bytes);

  const std::tm* const now_;

  uint64_t steps_left_ = kTemplateStepsMax, memory_left_ = kTemplateMemoryMax;
  std::deque<std::string> texts_;
  std::deque<TemplateList> lists_;
  std::deque<TemplateDict> dicts_;
  std::deque<TemplateNamespace> spaces_;
  std::optional<Error> error_;
};

}  // namespace spillway

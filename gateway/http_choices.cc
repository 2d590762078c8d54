// The choices of the request under way: each is a request of the gateway's own.
#include <algorithm>
#include <ranges>
#include <utility>

#include "common/check.h"
#include "gateway/api_choices.h"
#include "gateway/http_session.h"

namespace spillway {

bool HttpSession::submit(const ApiRequest& request) {
  choices_.clear();
  for (GenerateRequest& work : choice_requests(request, *tenant_, shared_.config().public_prefixes, id_,
                                               [this] { return shared_.next_request(); })) {
    Choice choice{.id = work.request, .waterfall = {}};
    choice.waterfall.prompt_tokens = checked_cast<uint32_t>(work.prompt.size());
    work.trace = log_.trace();
    if (!shared_.submit(std::move(work), *this)) {
      cancel_all();
      return false;
    }
    choices_.push_back(choice);
  }
  return true;
}

bool HttpSession::submitted() const { return std::ranges::any_of(choices_, &Choice::open); }

void HttpSession::cancel_all() {
  // The first one last: the others wait for it, and would start if it went first.
  for (Choice& choice : choices_ | std::views::reverse)
    if (std::exchange(choice.open, false)) shared_.cancel(choice.id);
}

void HttpSession::fail_all(const Error& error) {
  std::vector<RequestId> open;
  for (const Choice& choice : choices_)
    if (choice.open) open.push_back(choice.id);
  cancel_all();
  for (const RequestId id : open)
    if (!failed_) on(StreamError{id, error});
}

// REQUIRES: of a choice that was submitted here.
size_t HttpSession::choice_of(RequestId request) const {
  const auto found = std::ranges::find(choices_, request, &Choice::id);
  CHECK(found != choices_.end());
  return static_cast<size_t>(found - choices_.begin());
}

// The nodes go on until they are told: at once, or they compute tokens for nobody.
void HttpSession::stop_early(size_t choice) {
  Choice& one = choices_[choice];
  if (!answer_->stopped(choice) || !one.open || std::exchange(one.stop_told, true)) return;
  shared_.stop_found(one.id);
}

}  // namespace spillway

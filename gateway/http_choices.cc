// The choices of the request under way: each is a request of the gateway's own.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "gateway/api_choices.h"
#include "gateway/http_session.h"

namespace spillway {

bool HttpSession::submit(const ApiRequest& request) {
  choices_.clear();
  for (GenerateRequest& work : choice_requests(request, *tenant_, id_, [this] { return shared_.next_request(); })) {
    const RequestId id = work.request;
    if (!shared_.submit(std::move(work), *this)) {
      cancel_all();
      return false;
    }
    choices_.push_back({.id = id});
  }
  return true;
}

bool HttpSession::submitted() const { return std::ranges::any_of(choices_, &Choice::open); }

void HttpSession::cancel_all() {
  for (Choice& choice : choices_)
    if (std::exchange(choice.open, false)) shared_.cancel(choice.id);
}

// REQUIRES: of a request that was submitted here.
size_t HttpSession::choice_of(const StreamEvent& event) const {
  const RequestId id = std::visit([](const auto& one) { return one.request; }, event);
  const auto found = std::ranges::find(choices_, id, &Choice::id);
  CHECK(found != choices_.end());
  return static_cast<size_t>(found - choices_.begin());
}

// What an event that is no error adds to the answer: to `out`, where it is a stream.
void HttpSession::tell(OpenAiAnswer& answer, const StreamEvent& event, std::string* out) {
  const size_t choice = choice_of(event);
  if (const auto* const scores = std::get_if<StreamScores>(&event)) answer.add_scores(choice, *scores);
  if (const auto* const token = std::get_if<StreamToken>(&event))
    out != nullptr ? answer.stream_token(choice, *token, *out) : answer.add_token(choice, *token);
  stop_early(answer, choice);
  if (const auto* const end = std::get_if<StreamEnd>(&event))
    out != nullptr ? answer.stream_end(choice, *end, *out) : answer.add_end(choice, *end);
}

// The nodes go on until they are told: at once, or they compute tokens for nobody.
void HttpSession::stop_early(const OpenAiAnswer& answer, size_t choice) {
  Choice& one = choices_[choice];
  if (!answer.stopped(choice) || !one.open || std::exchange(one.stop_told, true)) return;
  shared_.stop_found(one.id);
}

}  // namespace spillway

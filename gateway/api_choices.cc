#include "gateway/api_choices.h"

#include "common/check.h"

namespace spillway {

AnswerShape answer_shape(const ApiRequest& request) {
  AnswerShape shape{.prompts = checked_cast<uint32_t>(1 + request.more_prompts.size()),
                    .choices_per_prompt = request.choices,
                    .digests = request.work.digest_logits,
                    .logprobs = request.work.logprob_count > 0,
                    .prompt_only = request.prompt_only,
                    .stops = request.stop};
  if (!request.echo) return shape;
  shape.echoed.push_back(request.work.prompt);
  for (const PromptOfList& one : request.more_prompts) shape.echoed.push_back(one.prompt);
  return shape;
}

std::vector<GenerateRequest> choice_requests(const ApiRequest& request, const TenantKey& tenant,
                                             const PublicPrefixes& shared, RequestId first,
                                             const std::function<RequestId()>& next) {
  std::vector<GenerateRequest> requests;
  for (size_t index = 0; index <= request.more_prompts.size(); ++index) {
    GenerateRequest work = request.work;
    if (index > 0) {
      work.prompt = request.more_prompts[index - 1].prompt;
      work.output_tokens_max = request.more_prompts[index - 1].output_tokens_max;
    }
    work.tenant = tenant;
    work.public_prefix = shared.of(work.prompt);
    for (uint32_t choice = 0; choice < request.choices; ++choice) {
      work.request = requests.empty() ? first : next();
      work.sampling.choice = choice;
      requests.push_back(work);
      if (choice > 0) continue;
      work.leader = work.request;  // of those that follow, which need no scores of their own
      work.score_prompt = false;
    }
    work.leader.reset();
  }
  return requests;
}

}  // namespace spillway

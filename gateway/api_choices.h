#pragma once

#include <functional>
#include <vector>

#include "gateway/openai_answer.h"
#include "gateway/openai_request.h"
#include "gateway/public_prefixes.h"

// One request of the API as the requests that the gateway knows: one a choice. Pure; any thread.
namespace spillway {

AnswerShape answer_shape(const ApiRequest& request);

// In the order of their choices. `first` is the id of the first, `next` gives the others'. Each further choice of a
// prompt follows the prompt's first, its leader.
std::vector<GenerateRequest> choice_requests(const ApiRequest& request, const TenantKey& tenant,
                                             const PublicPrefixes& shared, RequestId first,
                                             const std::function<RequestId()>& next);

}  // namespace spillway

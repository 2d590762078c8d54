#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/prefill_node/prefill_script.h"

namespace spillway::script {

// A state of attempt() at a prefill node and the script that leads there.
struct PrefillState {
  std::string name;
  uint32_t prompt = 0;
  bool live = true;        // the node holds a record
  bool streaming = false;  // parts are still due on the bulk link
  bool ended = false;      // token 0 was the last
  std::function<void(PrefillScript&)> reach;
};

inline std::vector<PrefillState> prefill_states() {
  using Script = PrefillScript;
  const auto begun = [](uint32_t prompt, uint32_t output = 4) {
    return [=](Script& p) {
      p.connect();
      p.prefill(prompt, attempt(), output);
    };
  };
  const auto grant = [](Script& p) { p.from(kDecodePeer, Grant{attempt(), 0}); };
  return {
      {"unknown", 200, false, false, false, [](Script& p) { p.connect(); }},
      {"early grant", 200, false, false, false,
       [=](Script& p) {
         p.connect();
         grant(p);
       }},
      {"computing", 200, true, false, false, begun(200)},
      {"computing, granted", 200, true, true, false,
       [=](Script& p) {
         begun(200)(p);
         grant(p);
       }},
      {"computing, parts in flight", 400, true, true, false,
       [=](Script& p) {
         begun(400)(p);
         grant(p);
         p.finish_step();
         p.layer_done(0);
       }},
      {"waiting behind another prompt", 400, true, false, false,
       [=](Script& p) {
         p.connect();
         p.prefill(64, attempt(50));
         p.prefill(400);
         p.finish_step();
         p.from(kGateway, Cancel{attempt(50)});
       }},
      {"holding, not granted", 200, true, false, false,
       [=](Script& p) {
         begun(200)(p);
         p.finish_steps();
       }},
      {"holding, parts in flight", 200, true, true, false,
       [=](Script& p) {
         begun(200)(p);
         grant(p);
         p.finish_steps();
       }},
      {"holding, all sent", 200, true, false, false,
       [=](Script& p) {
         begun(200)(p);
         grant(p);
         p.finish_steps();
         p.answer_sends();
       }},
      {"ended at token 0, not granted", 200, true, false, true,
       [=](Script& p) {
         begun(200, 1)(p);
         p.finish_steps();
       }},
      {"committed", 200, false, false, false,
       [=](Script& p) {
         begun(200)(p);
         grant(p);
         p.finish_steps();
         p.answer_sends();
         p.from(kDecodePeer, Committed{attempt()});
       }},
      {"cancelled", 200, false, false, false,
       [=](Script& p) {
         begun(200)(p);
         p.from(kGateway, Cancel{attempt()});
         p.end_step();
       }},
  };
}

}  // namespace spillway::script

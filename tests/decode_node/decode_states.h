#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/decode_node/decode_script.h"

namespace spillway::script {

// A state of attempt() at a decode node and the script that leads there.
struct DecodeState {
  std::string name;
  bool live = true;        // the node holds a record
  bool committed = false;  // P matters no more, or never did
  bool granted = false;    // P was told where its parts go, and they are not all here
  std::function<void(DecodeScript&)> reach;
};
inline constexpr uint32_t kStatePrompt = 200;  // of attempt() in every state: 4 blocks

inline std::vector<DecodeState> decode_states() {
  using Script = DecodeScript;
  const auto reserve = [](Script& d) {
    d.connect();
    d.reserve(kStatePrompt);
  };
  const auto commit = [=](Script& d) {
    reserve(d);
    d.land_all();
    d.done(kStatePrompt);
  };
  return {
      {"unknown", false, false, false, [](Script& d) { d.connect(); }},
      {"reserved, the prefill node is not connected", true, false, false,
       [](Script& d) {
         d.connect_gateway();
         d.on(PeerUp{kStranger, hello(Role::kPrefill, kStrangerBoot)});
         d.reserve(kStatePrompt);
       }},
      {"granted", true, false, true, reserve},
      {"some parts landed", true, false, true,
       [=](Script& d) {
         reserve(d);
         d.land(0, {0, kLayers});
         d.land(1, {0, 5});
       }},
      {"all parts landed", true, false, false,
       [=](Script& d) {
         reserve(d);
         d.land_all();
       }},
      {"prefill done, parts under way", true, false, true,
       [=](Script& d) {
         reserve(d);
         d.land(0, {0, kLayers});
         d.done(kStatePrompt);
       }},
      {"committed, first step in flight", true, true, false, commit},
      {"decoding, the transfer closed", true, true, false,
       [=](Script& d) {
         commit(d);
         d.answer_closes();
         d.finish_step();
       }},
      {"colocated, its prompt is computed", true, true, false,
       [](Script& d) {
         d.connect();
         d.colocate(kStatePrompt);
       }},
      {"colocated, decoding", true, true, false,
       [](Script& d) {
         d.connect();
         d.colocate(kStatePrompt);
         d.finish_step();
       }},
      {"finished", false, true, false,
       [=](Script& d) {
         commit(d);
         d.finish_steps();
       }},
      {"cancelled while receiving", false, false, false,
       [=](Script& d) {
         reserve(d);
         d.land(0, {0, kLayers});
         d.from(kGateway, Cancel{attempt()});
       }},
  };
}

}  // namespace spillway::script

#include "engine/layer_gates.h"

#include "common/check.h"

namespace spillway {

void AnnouncingGate::after_append(uint16_t layer) {
  CHECK(backend_.reached(backend_.record()));  // a backend that runs behind its caller must announce by wake-up
  events_.push(LayerDone{.step = step_, .layer = layer});
}

}  // namespace spillway

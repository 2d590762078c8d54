#include "kernels/rope_table.h"

#include <cmath>

#include "common/check.h"

namespace spillway {

void fill_rope_table(const RopeSettings& settings, uint32_t head_dim, std::span<float> table) {
  CHECK(head_dim > 0 && head_dim % 2 == 0 && table.size() % head_dim == 0);
  CHECK(settings.divisors.empty() || settings.divisors.size() == head_dim / 2);
  for (uint32_t dim = 0; dim < head_dim; dim += 2) {
    double frequency = std::pow(settings.theta_base, -static_cast<double>(dim) / head_dim) * settings.position_scale;
    if (!settings.divisors.empty()) frequency /= settings.divisors[dim / 2];
    for (size_t position = 0; position < table.size() / head_dim; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      table[position * head_dim + dim] = static_cast<float>(std::cos(angle) * settings.magnitude);
      table[position * head_dim + dim + 1] = static_cast<float>(std::sin(angle) * settings.magnitude);
    }
  }
}

}  // namespace spillway

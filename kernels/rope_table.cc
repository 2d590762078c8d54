#include <cmath>

#include "common/check.h"
#include "kernels/rope_append.h"

namespace spillway {

void fill_rope_table(double theta_base, uint32_t head_dim, std::span<float> table) {
  CHECK(head_dim > 0 && head_dim % 2 == 0 && table.size() % head_dim == 0);
  for (uint32_t dim = 0; dim < head_dim; dim += 2) {
    const double frequency = std::pow(theta_base, -static_cast<double>(dim) / head_dim);
    for (size_t position = 0; position < table.size() / head_dim; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      table[position * head_dim + dim] = static_cast<float>(std::cos(angle));
      table[position * head_dim + dim + 1] = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace spillway

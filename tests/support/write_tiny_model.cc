// Writes the tiny model as a file, for tests of real processes that need a model that is fast on any machine.
#include <cstdio>
#include <fstream>

#include "tests/support/tiny_model.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_tiny_model FILE\n");
    return 2;
  }
  const std::vector<std::byte> bytes = spillway::make_tiny_model({.seed = 7, .context = 4096}).gguf;
  std::ofstream file(argv[1], std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return file.flush() ? 0 : 1;
}

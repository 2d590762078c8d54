#include "tests/text/demo_tokenizer.h"

#include <ctime>
#include <fstream>
#include <stdexcept>

namespace spillway {

const Tokenizer& demo_tokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    const Result<GgufFile> file = GgufFile::open(SPILLWAY_MODEL);
    if (!file) throw std::runtime_error(file.error().detail);
    Result<std::unique_ptr<Tokenizer>> made = Tokenizer::from_gguf(*file);
    if (!made) throw std::runtime_error(made.error().detail);
    return std::move(*made);
  }();
  return *tokenizer;
}

nlohmann::json read_test_data(std::string_view file_name) {
  std::ifstream file(std::string(SPILLWAY_TEST_DATA) + "/" + std::string(file_name));
  if (!file) throw std::runtime_error("tests/data has no " + std::string(file_name));
  return nlohmann::json::parse(file);
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace spillway

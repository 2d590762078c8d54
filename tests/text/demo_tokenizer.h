#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "text/tokenizer.h"

namespace spillway {

// The demo model's tokenizer, made once a process, and the files of tests/data. A missing or unreadable file throws.
const Tokenizer& demo_tokenizer();
nlohmann::json read_test_data(std::string_view file_name);

// Time this process has computed: unlike a wall clock it says nothing about what else the machine does.
double cpu_seconds();

}  // namespace spillway

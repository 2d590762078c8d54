#pragma once

#include <string_view>

namespace spillway {

std::string_view version();  // of this build: project(VERSION) in CMakeLists.txt

}  // namespace spillway

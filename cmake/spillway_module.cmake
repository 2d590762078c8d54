# The whole build vocabulary: spillway_module, spillway_test, spillway_bench.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(SPILLWAY_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize= (address,undefined or thread)")

add_library(spillway_flags INTERFACE)
target_compile_options(spillway_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -ffp-contract=off -fno-math-errno)
target_include_directories(spillway_flags INTERFACE ${PROJECT_SOURCE_DIR})
if(SPILLWAY_SANITIZE)
  target_compile_options(spillway_flags INTERFACE -fsanitize=${SPILLWAY_SANITIZE} -fno-sanitize-recover=all
    -fno-omit-frame-pointer)
  target_link_options(spillway_flags INTERFACE -fsanitize=${SPILLWAY_SANITIZE})
endif()

# Headers that nearly every file reads, parsed once for all modules and once for all tests: half of a build was parsing.
file(WRITE ${CMAKE_BINARY_DIR}/precompiled.cc "")
function(spillway_precompiled name header)
  add_library(${name} OBJECT EXCLUDE_FROM_ALL ${CMAKE_BINARY_DIR}/precompiled.cc)
  target_link_libraries(${name} PRIVATE spillway_flags fmt::fmt ${ARGN})
  target_precompile_headers(${name} PRIVATE ${PROJECT_SOURCE_DIR}/${header})
endfunction()
spillway_precompiled(spillway_precompiled cmake/precompiled.h)
spillway_precompiled(spillway_test_precompiled tests/support/precompiled.h GTest::gtest)
target_compile_options(spillway_test_precompiled PRIVATE $<$<CONFIG:Release>:-O1>)

# spillway_module(NAME SOURCES a.cc ... [DEPENDS module ...] [LIBRARIES target ...])
# One static library per folder. DEPENDS must follow the module table of ARCHITECTURE.md (tests/tidy checks it).
function(spillway_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LIBRARIES" ${ARGN})
  add_library(spillway_${name} STATIC ${ARG_SOURCES})
  add_library(spillway::${name} ALIAS spillway_${name})
  list(TRANSFORM ARG_DEPENDS PREPEND spillway::)
  target_link_libraries(spillway_${name} PUBLIC spillway_flags ${ARG_DEPENDS} ${ARG_LIBRARIES})
  target_precompile_headers(spillway_${name} REUSE_FROM spillway_precompiled)
endfunction()

# spillway_test(NAME LABEL unit|integration|slow SOURCES a_test.cc ... DEPENDS module ... [LIBRARIES target ...])
# One GoogleTest binary per module, run by ctest as one test with a time limit, in the repository root.
function(spillway_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPENDS;LIBRARIES" ${ARGN})
  add_executable(${name}_test ${ARG_SOURCES})
  list(TRANSFORM ARG_DEPENDS PREPEND spillway::)
  target_link_libraries(${name}_test PRIVATE spillway_flags ${ARG_DEPENDS} ${ARG_LIBRARIES} GTest::gtest
    GTest::gtest_main)
  target_compile_options(${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)  # a third off their build
  target_precompile_headers(${name}_test REUSE_FROM spillway_test_precompiled)
  # From the repository root, where ctest runs them: the same objects in every clone, so the compiler cache serves all.
  target_compile_definitions(${name}_test PRIVATE SPILLWAY_TEST_DATA="tests/data"
    SPILLWAY_MODEL="models/SmolLM2-135M-Instruct.Q4_1.gguf")
  add_test(NAME ${name} COMMAND ${name}_test WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(SPILLWAY_SANITIZE OR CMAKE_CROSSCOMPILING)  # several times slower (under qemu; with every ISA level of the machine)
    math(EXPR ARG_TIMEOUT "4 * ${ARG_TIMEOUT}")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# spillway_bench(NAME SOURCES a.cc DEPENDS module ...): a Google Benchmark binary; ctest runs it briefly so it cannot rot.
function(spillway_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  list(TRANSFORM ARG_DEPENDS PREPEND spillway::)
  target_link_libraries(${name} PRIVATE spillway_flags ${ARG_DEPENDS} benchmark::benchmark)
  add_test(NAME ${name} COMMAND ${name} --benchmark_min_time=0.01)
  set_tests_properties(${name} PROPERTIES LABELS "bench" TIMEOUT 120 RUN_SERIAL TRUE)
endfunction()

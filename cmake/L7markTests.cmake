# SPDX-License-Identifier: GPL-2.0-only
# How a GoogleTest program is built. The libraries that it tests are those of the product; the test
# itself is not optimised, because it runs for less time than its optimisation takes. Precompiled
# headers were measured with GCC 12 and left out: to load one costs what it saves.

# l7mark_gtest(TARGET [LIBS...]): TARGET, an executable of tests, links LIBS.
function(l7mark_gtest target)
  target_compile_options(${target} PRIVATE -O0)
  target_link_libraries(${target} PRIVATE l7mark_flags ${ARGN} GTest::gtest GTest::gmock
    GTest::gtest_main)
endfunction()

# l7mark_unit_test(NAME [LIBS...]): selftests/unit/NAME_test.cpp as a ctest case.
function(l7mark_unit_test name)
  add_executable(${name}_test ${name}_test.cpp)
  l7mark_gtest(${name}_test ${ARGN})
  add_test(NAME unit.${name} COMMAND ${name}_test)
endfunction()

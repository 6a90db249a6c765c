# SPDX-License-Identifier: GPL-2.0-only
# Flags that hold for our own code, and the helpers that declare its targets.
add_library(l7mark_flags INTERFACE)
target_compile_options(l7mark_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion
  $<$<BOOL:${L7MARK_SANITIZE}>:-fsanitize=address,undefined -fno-omit-frame-pointer
  -fno-sanitize-recover=undefined>
  $<$<BOOL:${L7MARK_FUZZ}>:-fsanitize=fuzzer-no-link>)
target_link_options(l7mark_flags INTERFACE
  $<$<BOOL:${L7MARK_SANITIZE}>:-fsanitize=address,undefined>)
target_compile_definitions(l7mark_flags INTERFACE L7MARK_VERSION="${PROJECT_VERSION}")
target_include_directories(l7mark_flags INTERFACE ${CMAKE_SOURCE_DIR}/include
  ${CMAKE_SOURCE_DIR}/userspace)

# l7mark_library(NAME [LIBS...]): every .cpp of the calling directory as static library l7mark_NAME.
function(l7mark_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_library(l7mark_${name} STATIC ${sources})
  target_link_libraries(l7mark_${name} PUBLIC l7mark_flags ${ARGN})
endfunction()

// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace l7mark {

// ASCII only: names in policies and nDPI's tables have no other letters.
[[nodiscard]] std::string to_lower(std::string_view text);
[[nodiscard]] bool equal_ignoring_case(std::string_view a, std::string_view b);

// The `count` candidates nearest to `word` by edit distance (case ignored), nearest first; those
// too far off to be a slip of the keyboard are left out.
[[nodiscard]] std::vector<std::string> nearest(std::string_view word,
                                               const std::vector<std::string>& candidates,
                                               std::size_t count = 3);

// " (did you mean Zoom or Zattoo?)", or nothing where no candidate is near.
[[nodiscard]] std::string did_you_mean(std::string_view word,
                                       const std::vector<std::string>& candidates);

// True if a pattern describes all of the text: "*" stands for any run of characters. Case counts.
// The time is at most the product of the two lengths.
[[nodiscard]] bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace l7mark

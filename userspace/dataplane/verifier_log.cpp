// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/verifier_log.hpp"

#include <bpf/libbpf.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <string_view>

namespace l7mark {

namespace {

constexpr std::uint32_t kErrorsAndStatistics = 4;  // BPF_LOG_STATS of include/linux/bpf_verifier.h
constexpr std::size_t kLogBytes = 16384;  // full means a refusal: some errors and four statistics
constexpr std::size_t kLines = 3;
constexpr std::size_t kBytes = 300;

// print_verification_stats() of kernel/bpf/verifier.c, libbpf's headings, and what 5.10 says of
// each program with a context.
constexpr std::array<std::string_view, 5> kNoise = {"processed ", "verification time ",
                                                    "stack depth ", "-- ", "Unrecognized arg#"};

bool is_noise(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos ||
         std::any_of(kNoise.begin(), kNoise.end(),
                     [&](std::string_view word) { return line.starts_with(word); });
}

}  // namespace

std::string last_words(const std::string& log) {
  std::vector<std::string> lines;
  std::istringstream in(log);
  for (std::string line; std::getline(in, line);)
    if (!is_noise(line)) lines.push_back(line);
  std::string words;
  for (std::size_t i = lines.size() - std::min(lines.size(), kLines); i < lines.size(); ++i)
    words += (words.empty() ? "" : "; ") + lines[i];
  if (words.size() > kBytes) words.replace(0, words.size() - kBytes + 4, "... ");
  return words;
}

VerifierLog::VerifierLog(bpf_object* object) {
  bpf_program* program = nullptr;
  while ((program = bpf_object__next_program(object, program)) != nullptr) {
    auto& [name, log] = logs_.emplace_back(bpf_program__name(program), kLogBytes);
    bpf_program__set_log_buf(program, log.data(), log.size());
    bpf_program__set_log_level(program, kErrorsAndStatistics);
  }
}

std::string VerifierLog::reason() const {
  // Loading ends with the first program that is refused.
  const auto last = std::find_if(logs_.rbegin(), logs_.rend(),
                                 [](const auto& entry) { return entry.second.front() != '\0'; });
  if (last == logs_.rend()) return {};
  const std::string words =
      last_words(std::string(last->second.data(), strnlen(last->second.data(), kLogBytes)));
  return words.empty() ? words : last->first + ": " + words;
}

}  // namespace l7mark

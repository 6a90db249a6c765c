// SPDX-License-Identifier: GPL-2.0-only
// What the running kernel's BPF can do, found by trying each thing on a throw-away program or map,
// never by the kernel's version: distributions backport, and build options take away.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "util/result.hpp"

namespace l7mark {

enum class FeatureId : std::uint8_t {
  // Nothing works without these.
  xdp_program,
  tc_program,
  bounded_loops,
  jiffies64,
  lru_hash,
  lpm_trie,
  read_only_globals,
  ring_buffer,
  ring_array,
  test_run,
  bpffs,
  // These have another way.
  xdp_load_bytes,
  xdp_frags,
  xdp_metadata,
  tcx,
  freplace,
  shared_metadata,
  map_batch,
  map_btf,
  kernel_btf,
  jit,
  memcg_accounting,
  count,
};
inline constexpr std::size_t kFeatureCount = static_cast<std::size_t>(FeatureId::count);

struct Feature {
  FeatureId id = FeatureId::count;
  std::string_view name;     // as in `l7mark features` and L7MARK_WITHOUT
  std::string_view use;      // what it is wanted for
  std::string_view since;    // first mainline kernel with it: "5.18"
  std::string_view with;     // the path taken where it is there
  std::string_view without;  // the path taken where it is missing; empty: l7mark needs it
  bool present = false;
  bool disabled = false;  // switched off by the user, so that the other path is taken
  int code = 0;           // errno of the attempt where it is missing, 0 if it has none

  [[nodiscard]] bool required() const { return without.empty(); }
  // The path that is taken now; "refused" for a required feature that is missing.
  [[nodiscard]] std::string_view path() const;
};

class Features {
 public:
  // All of them, none present.
  Features();

  [[nodiscard]] bool has(FeatureId id) const { return get(id).present; }
  [[nodiscard]] const Feature& get(FeatureId id) const {
    return table_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] const std::array<Feature, kFeatureCount>& all() const& { return table_; }
  const std::array<Feature, kFeatureCount>& all() && = delete;

  // `code` is the errno of a failed attempt, 0 for one that went well.
  void set(FeatureId id, int code);
  // Treats the features in `names` (separated by commas) as missing, so that tests and careful
  // users take the other path. Fails on an unknown name and on a required feature.
  [[nodiscard]] Status disable(std::string_view names);
  // Fails, naming the first required feature that is missing and the kernel that brought it.
  [[nodiscard]] Status check_required() const;

 private:
  std::array<Feature, kFeatureCount> table_;
};

// Tries every feature, then disables those that the environment variable L7MARK_WITHOUT names.
// Touches no interface and leaves nothing behind. Fails only where nothing can be said: without
// the privileges, without bpf(2), or on a bad L7MARK_WITHOUT. A missing feature is no failure here:
// see check_required(). Lowers RLIMIT_MEMLOCK for a moment: call it before there are threads.
[[nodiscard]] Result<Features> probe_features();

// For people: a table, one feature a line.
[[nodiscard]] std::string format_features(const Features& features, std::string_view kernel);
// One JSON object: {"kernel": "6.1.0-…", "usable": true, "features": [{"name": …}, …]}.
[[nodiscard]] std::string features_json(const Features& features, std::string_view kernel);

}  // namespace l7mark

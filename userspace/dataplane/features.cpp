// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/features.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "util/text.hpp"

namespace l7mark {
namespace {

constexpr std::array<Feature, kFeatureCount> kTable = {{
    {FeatureId::xdp_program, "xdp_program", "programs in the driver", "4.8", "used", ""},
    {FeatureId::tc_program, "tc_program", "programs in tc", "4.1", "used", ""},
    {FeatureId::bounded_loops, "bounded_loops", "parsing header chains", "5.3", "used", ""},
    {FeatureId::jiffies64, "jiffies64", "cheap time stamps", "5.5", "used", ""},
    {FeatureId::lru_hash, "lru_hash", "flow tables that evict", "4.10", "used", ""},
    {FeatureId::lpm_trie, "lpm_trie", "prefixes of the inside", "4.11", "used", ""},
    {FeatureId::read_only_globals, "read_only_globals", "options set at load", "5.5", "used", ""},
    {FeatureId::ring_buffer, "ring_buffer", "packet copies to workers", "5.8", "used", ""},
    {FeatureId::ring_array, "ring_array", "one ring for each worker", "5.8", "used", ""},
    {FeatureId::test_run, "test_run", "changing flows in place", "4.12", "used", ""},
    {FeatureId::bpffs, "bpffs", "pins, so that a restart adopts", "4.4", "used", ""},
    {FeatureId::xdp_load_bytes, "xdp_load_bytes", "copying packets in XDP", "5.18",
     "one helper call", "a read of kernel memory"},
    {FeatureId::xdp_frags, "xdp_frags", "XDP on jumbo frames", "5.18", "multi-buffer program",
     "single-buffer program: drivers refuse a large MTU; lower it, or use mode tc"},
    {FeatureId::xdp_metadata, "xdp_metadata", "handing XDP's result to tc", "4.15",
     "in front of the packet", "tc looks the flow up again"},
    {FeatureId::tcx, "tcx", "tc without a qdisc", "6.6", "TCX link",
     "clsact qdisc with a bpf filter"},
    {FeatureId::freplace, "freplace", "XDP beside other programs", "5.10", "libxdp's dispatcher",
     "alone on the interface: another XDP program there is refused"},
    {FeatureId::shared_metadata, "shared_metadata", "the same behind a dispatcher", "5.10",
     "in front of the packet", "tc looks the flow up again"},
    {FeatureId::map_batch, "map_batch", "many entries in one call", "5.6", "batches of entries",
     "one call for each entry"},
    {FeatureId::map_btf, "map_btf", "maps that bpftool can read", "4.18", "types in maps",
     "maps show as bytes"},
    {FeatureId::kernel_btf, "kernel_btf", "libxdp's dispatcher", "5.4", "read",
     "not needed by l7mark's own programs"},
    {FeatureId::jit, "jit", "speed", "3.16", "machine code",
     "interpreter: several times the cost of a packet"},
    {FeatureId::memcg_accounting, "memcg_accounting", "memory of maps", "5.11",
     "charged to the control group", "RLIMIT_MEMLOCK is raised"},
}};

constexpr bool in_order() {
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<std::size_t>(kTable[i].id) != i) return false;
  }
  return true;
}
static_assert(in_order(), "kTable is indexed by FeatureId");

std::string_view result_word(const Feature& feature) {
  if (feature.present) return "yes";
  return feature.disabled ? "off" : "no";
}

}  // namespace

std::string_view Feature::path() const {
  if (present) return with;
  return required() ? "refused" : without;
}

Features::Features() : table_(kTable) {}

void Features::set(FeatureId id, int code) {
  Feature& feature = table_[static_cast<std::size_t>(id)];
  feature.present = code == 0;
  feature.code = code;
}

Status Features::disable(std::string_view names) {
  while (!names.empty()) {
    const std::size_t comma = names.find(',');
    const std::string_view name = names.substr(0, comma);
    names = comma == std::string_view::npos ? std::string_view{} : names.substr(comma + 1);
    if (name.empty()) continue;
    Feature* found = nullptr;
    for (Feature& feature : table_) {
      if (feature.name == name) found = &feature;
    }
    if (found == nullptr) {
      std::vector<std::string> known;
      for (const Feature& feature : table_) known.emplace_back(feature.name);
      return Error{"disable feature", std::string(name), 0,
                   "no such feature" + did_you_mean(name, known)};
    }
    if (found->required()) {
      return Error{"disable feature", std::string(name), 0, "l7mark cannot work without it"};
    }
    found->present = false;
    found->disabled = true;
    // Only the helper reads across buffers.
    if (found->id == FeatureId::xdp_load_bytes) L7MARK_TRY(disable("xdp_frags"));
  }
  return success();
}

Status Features::check_required() const {
  for (const Feature& feature : table_) {
    if (!feature.required() || feature.present) continue;
    return Error{"use this kernel", std::string(feature.name), feature.code,
                 fmt::format("needed for {}; Linux has it since {}, l7mark supports 5.10 and newer",
                             feature.use, feature.since)};
  }
  return success();
}

std::string format_features(const Features& features, std::string_view kernel) {
  std::string text = fmt::format("kernel {}\n\n{:<18} {:<5} {:<8} {:<31} {}\n", kernel, "FEATURE",
                                 "FOUND", "SINCE", "WANTED FOR", "PATH TAKEN");
  for (const Feature& feature : features.all()) {
    text += fmt::format("{:<18} {:<5} {:<8} {:<31} {}\n", feature.name, result_word(feature),
                        feature.since, feature.use, feature.path());
  }
  if (const Status usable = features.check_required(); !usable) {
    text += fmt::format("\n{}\n", usable.error().message());
  }
  return text;
}

std::string features_json(const Features& features, std::string_view kernel) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Feature& feature : features.all()) {
    list.push_back({{"name", feature.name},
                    {"use", feature.use},
                    {"since", feature.since},
                    {"required", feature.required()},
                    {"present", feature.present},
                    {"disabled", feature.disabled},
                    {"errno", feature.code},
                    {"path", feature.path()}});
  }
  const nlohmann::ordered_json document = {{"kernel", kernel},
                                           {"usable", features.check_required().ok()},
                                           {"features", std::move(list)}};
  // Names of kernels are the kernel's: what is no UTF-8 in them must not throw.
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace l7mark

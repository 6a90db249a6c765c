// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/dataplane.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <l7mark_control.skel.h>
#include <l7mark_tc.skel.h>
#include <l7mark_xdp.skel.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "dataplane/map_walk.hpp"
#include "dataplane/verifier_log.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

// x86 and s390x show stores to other CPUs in the order in which they were made.
#if defined(__x86_64__) || defined(__i386__) || defined(__s390x__)
constexpr std::uint32_t kOrder = 0;
#else
constexpr std::uint32_t kOrder = L7M_CFG_WEAK_ORDER;
#endif

// libbpf's words one level lower than ours: what matters comes back as an Error.
int log_libbpf(libbpf_print_level level, const char* format, va_list arguments) {
  if (level == LIBBPF_DEBUG || !log_enabled(LogLevel::debug)) return 0;
  char line[512];
  const int length = vsnprintf(line, sizeof(line), format, arguments);
  if (length > 0) {
    std::string_view text(
        line, std::min<std::size_t>(static_cast<std::size_t>(length), sizeof(line) - 1));
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    log_debug("{}", text);
  }
  return 0;
}

// Maps that are shared between the objects, and pinned; the rest is a program's own.
bool is_shared(const bpf_map* map) {
  const std::string_view name = bpf_map__name(map);
  return !bpf_map__is_internal(map) && name != "scratch";
}

// A pinned map keeps its size: another one would mean a new map and lost flows. Any other
// difference is another layout under the same version number, and refused.
Status match_pinned(bpf_map* map, const std::string& path) {
  const Fd fd(bpf_obj_get(path.c_str()));
  if (!fd) return success();
  bpf_map_info info{};
  __u32 length = sizeof(info);
  if (bpf_obj_get_info_by_fd(fd.get(), &info, &length) != 0)
    return error_from_errno("read pinned map", path);
  if (info.key_size != bpf_map__key_size(map) || info.value_size != bpf_map__value_size(map) ||
      info.type != static_cast<__u32>(bpf_map__type(map)))
    return Error{"adopt pinned map", path, 0,
                 "its layout is another one; run `l7mark unload --all` to take it out"};
  if (info.max_entries != bpf_map__max_entries(map)) {
    log_warning("map {} keeps its {} entries until `l7mark unload --all`", bpf_map__name(map),
                info.max_entries);
    bpf_map__set_max_entries(map, info.max_entries);
  }
  return success();
}

// `reason`: the verifier's, which refuses with EACCES too.
Error load_error(int code, const std::string& reason) {
  const bool privileges = reason.empty() && (code == -EPERM || code == -EACCES);
  std::string detail = reason.empty() ? "see `l7mark features`" : "the kernel refuses " + reason;
  if (privileges) detail = "needs root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
  return Error{"load", "the BPF programs", -code, std::move(detail)};
}

std::uint32_t sets_for(std::uint32_t candidates) {
  return std::max<std::uint32_t>(1, (candidates + L7M_WAYS - 1) / L7M_WAYS);
}

const std::array<std::pair<std::string_view, std::string_view>, L7M_COUNTER_COUNT> kCounters{{
#define L7M_COUNTER_TEXT(symbol, name, help) {name, help},
    L7M_COUNTERS(L7M_COUNTER_TEXT)
#undef L7M_COUNTER_TEXT
}};

}  // namespace

std::string_view counter_name(std::size_t counter) {
  return kCounters[counter].first;
}
std::string_view counter_help(std::size_t counter) {
  return kCounters[counter].second;
}

JiffiesClock::JiffiesClock(l7m_clock first, l7m_clock second) {
  const double seconds = static_cast<double>(second.time_ns - first.time_ns) / 1e9;
  const double rate = static_cast<double>(second.jiffies - first.jiffies) / seconds;
  double nearest = 1e9;
  for (const std::uint32_t hz : {100U, 250U, 300U, 1000U}) {  // kernel/Kconfig.hz
    const double distance = std::abs(rate - hz) / hz;
    if (distance >= nearest) continue;
    nearest = distance;
    hz_ = hz;
  }
}

std::uint64_t JiffiesClock::age_ms(std::uint32_t stamp, const l7m_clock& now) const {
  const auto ticks = static_cast<std::uint32_t>(now.jiffies) - stamp;
  // A stamp made after `now` was read.
  if (ticks > 0x80000000U) return 0;
  return std::uint64_t{ticks} * 1000 / hz_;
}

std::uint64_t JiffiesClock::later(const l7m_clock& now, std::uint64_t after_ms) const {
  return now.jiffies + after_ms * hz_ / 1000;
}

void Dataplane::TcObject::operator()(l7mark_tc* object) const {
  l7mark_tc::destroy(object);
}
void Dataplane::ControlObject::operator()(l7mark_control* object) const {
  l7mark_control::destroy(object);
}

Dataplane::Dataplane() = default;
Dataplane::Dataplane(Dataplane&&) noexcept = default;
Dataplane& Dataplane::operator=(Dataplane&&) noexcept = default;
Dataplane::~Dataplane() = default;

Result<Dataplane> Dataplane::open(const PinPaths& paths, const DataplaneOptions& options,
                                  const Features& features) {
  L7MARK_TRY(features.check_required());
  L7MARK_TRY(prepare_pins(paths));
  return load(&paths, options, features);
}

Result<Dataplane> Dataplane::open_private(const DataplaneOptions& options,
                                          const Features& features) {
  L7MARK_TRY(features.check_required());
  return load(nullptr, options, features);
}

Status Dataplane::make_rings(const PinPaths* paths, const DataplaneOptions& options) {
  for (std::uint32_t i = 0; i < options.rings; ++i) {
    const std::string name = "ring" + std::to_string(i);
    Fd fd(paths != nullptr ? bpf_obj_get(paths->map(name).c_str()) : -1);
    if (!fd) {
      fd =
          Fd(bpf_map_create(BPF_MAP_TYPE_RINGBUF, name.c_str(), 0, 0, options.ring_bytes, nullptr));
      if (!fd) return error_from_errno("make ring buffer", name);
      if (paths != nullptr && bpf_obj_pin(fd.get(), paths->map(name).c_str()) != 0)
        return error_from_errno("pin", paths->map(name));
    }
    ring_fds_.push_back(std::move(fd));
  }
  return success();
}

Result<Dataplane> Dataplane::load(const PinPaths* paths, const DataplaneOptions& options,
                                  const Features& features) {
  libbpf_set_print(log_libbpf);
  Dataplane out;
  out.options_ = options;
  out.batches_ = features.has(FeatureId::map_batch);
  out.xdp_load_bytes_ = features.has(FeatureId::xdp_load_bytes);
  out.xdp_frags_ = features.has(FeatureId::xdp_frags);
  out.config_flags_ = (options.replay ? L7M_CFG_REPLAY : 0U) | kOrder;
  out.adopted_ = paths != nullptr && std::filesystem::exists(paths->map("flows4"));

  out.tc_.reset(l7mark_tc::open());
  if (!out.tc_) return error_from_errno("open", "the BPF objects");
  l7mark_tc& tc = *out.tc_;
  bpf_map__set_max_entries(tc.maps.flows4, options.flows);
  bpf_map__set_max_entries(tc.maps.flows6, options.flows);
  bpf_map__set_max_entries(tc.maps.candidates, sets_for(options.candidates));
  bpf_map__set_max_entries(tc.maps.services, options.services);
  bpf_map__set_max_entries(tc.maps.hints, options.hints);
  tc.rodata->l7m_config.parse = options.parse;
  tc.rodata->l7m_config.flags = out.config_flags_;

  L7MARK_TRY(out.make_rings(paths, options));
  if (bpf_map__set_inner_map_fd(tc.maps.rings, out.ring_fd(0)) != 0)
    return error_from_errno("set up", "map rings");
  if (paths != nullptr) {
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, tc.obj) {
      if (!is_shared(map)) continue;
      const std::string path = paths->map(bpf_map__name(map));
      L7MARK_TRY(match_pinned(map, path));
      bpf_map__set_pin_path(map, path.c_str());
    }
  }
  // A pinned map keeps its size.
  out.sets_ = bpf_map__max_entries(tc.maps.candidates);
  tc.rodata->l7m_config.sets = out.sets_;
  const VerifierLog log(tc.obj);
  if (const int code = l7mark_tc::load(&tc); code != 0) return load_error(code, log.reason());
  L7MARK_TRY(out.load_control());
  L7MARK_TRY(out.choose_secrets());
  for (std::uint32_t i = 0; i < out.rings(); ++i) {
    const int fd = out.ring_fd(i);
    if (bpf_map_update_elem(bpf_map__fd(tc.maps.rings), &i, &fd, BPF_ANY) != 0)
      return error_from_errno("set up", "map rings");
  }
  if (paths != nullptr) {
    // Replaced, because this one may be newer.
    const std::string path = paths->classid_program();
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    if (bpf_obj_pin(bpf_program__fd(tc.progs.l7mark_classid), path.c_str()) != 0)
      return error_from_errno("pin", path);
  }
  return out;
}

int Dataplane::program_fd(const char* name) const {
  for (const bpf_object* object : {tc_->obj, control_->obj}) {
    const bpf_program* program = bpf_object__find_program_by_name(object, name);
    if (program != nullptr) return bpf_program__fd(program);
  }
  return -1;
}

int Dataplane::map_fd(const char* name) const {
  return bpf_object__find_map_fd_by_name(tc_->obj, name);
}

Status Dataplane::share_maps(bpf_object* object) const {
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (!is_shared(map)) continue;
    if (bpf_map__reuse_fd(map, map_fd(bpf_map__name(map))) != 0)
      return error_from_errno("share map", bpf_map__name(map));
  }
  return success();
}

Status Dataplane::load_control() {
  control_.reset(l7mark_control::open());
  if (!control_) return error_from_errno("open", "the BPF objects");
  control_->rodata->l7m_config = tc_->rodata->l7m_config;
  L7MARK_TRY(share_maps(control_->obj));
  // No packet passes there.
  if (bpf_map__set_autocreate(control_->maps.scratch, false) != 0)
    return error_from_errno("set up", "map scratch");
  const VerifierLog log(control_->obj);
  if (const int code = l7mark_control::load(control_.get()); code != 0)
    return load_error(code, log.reason());
  return success();
}

Result<bpf_object*> Dataplane::open_xdp() const {
  l7mark_xdp* xdp = l7mark_xdp::open();
  if (xdp == nullptr) return error_from_errno("open", "the XDP object");
  xdp->rodata->l7m_config.parse = options_.parse;
  __u32 flags = config_flags_;
  if (xdp_load_bytes_) flags |= L7M_CFG_XDP_LOAD_BYTES;
  if (xdp_frags_) flags |= L7M_CFG_XDP_FRAGS;
  xdp->rodata->l7m_config.flags = flags;
  xdp->rodata->l7m_config.sets = sets_;
  // libxdp takes the object itself; the skeleton around it holds nothing else of worth.
  bpf_object* object = std::exchange(xdp->obj, nullptr);
  *xdp->skeleton->obj = nullptr;
  l7mark_xdp::destroy(xdp);
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    if (xdp_frags_) bpf_program__set_flags(program, BPF_F_XDP_HAS_FRAGS);
  }
  if (Status shared = share_maps(object); !shared) {
    bpf_object__close(object);
    return shared.error();
  }
  return object;
}

// Candidates that are there already have been put where the secrets of their time say.
Status Dataplane::choose_secrets() {
  const auto settings = read_settings();
  if (!settings) return settings.error();
  secrets_ = settings->secrets;
  constexpr l7m_secrets kNone{};
  if (std::memcmp(&secrets_, &kNone, sizeof(kNone)) != 0) return success();
  if (getrandom(&secrets_, sizeof(secrets_), 0) != sizeof(secrets_))
    return error_from_errno("read", "random bytes");
  return success();
}

Status Dataplane::write_settings(const l7m_settings& settings) {
  const __u32 zero = 0;
  l7m_settings with_secrets = settings;
  with_secrets.secrets = secrets_;
  with_secrets.flags |= header_flags_;
  if (bpf_map_update_elem(bpf_map__fd(tc_->maps.settings), &zero, &with_secrets, BPF_ANY) != 0)
    return error_from_errno("write", "map settings");
  return success();
}

Result<l7m_settings> Dataplane::read_settings() const {
  const __u32 zero = 0;
  l7m_settings out{};
  if (bpf_map_lookup_elem(bpf_map__fd(tc_->maps.settings), &zero, &out) != 0)
    return error_from_errno("read", "map settings");
  return out;
}

Status Dataplane::write_action(std::uint32_t index, const l7m_action& action) {
  if (bpf_map_update_elem(bpf_map__fd(tc_->maps.actions), &index, &action, BPF_ANY) != 0)
    return error_from_errno("write", "map actions");
  return success();
}

std::optional<l7m_action> Dataplane::action(std::uint32_t index) const {
  l7m_action out{};
  if (bpf_map_lookup_elem(bpf_map__fd(tc_->maps.actions), &index, &out) != 0) return std::nullopt;
  return out;
}

Status Dataplane::set_inside(std::span<const std::pair<Address, unsigned>> prefixes) {
  const int fd = bpf_map__fd(tc_->maps.inside);
  l7m_prefix_key key{};
  while (bpf_map_get_next_key(fd, nullptr, &key) == 0)
    if (bpf_map_delete_elem(fd, &key) != 0) return error_from_errno("clear", "map inside");
  for (const auto& [address, length] : prefixes) {
    key.length = length;
    std::memcpy(key.addr, address.bytes.data(), sizeof(key.addr));
    const __u32 one = 1;
    if (bpf_map_update_elem(fd, &key, &one, BPF_ANY) != 0)
      return error_from_errno("write", "map inside");
  }
  return success();
}

Status Dataplane::write_headers(std::span<const HeaderPrefix> prefixes,
                                const l7m_header_rules& rules) {
  const bool any = std::any_of(std::begin(rules.exact), std::end(rules.exact),
                               [](std::uint64_t word) { return word != 0; });
  constexpr std::uint32_t kFlags[] = {L7M_SET_HEADERS, L7M_SET_HEADERS | L7M_SET_HEADERS_ODD};
  const std::uint32_t spare = header_flags_ == kFlags[0] ? 1 : 0;
  Status written = success();
  if (any) {
    written = clear_headers(spare);
    if (written.ok()) written = fill_headers(spare, prefixes);
    if (written.ok() &&
        bpf_map_update_elem(bpf_map__fd(tc_->maps.header_rules), &spare, &rules, BPF_ANY) != 0)
      written = error_from_errno("write", "map header_rules");
  }
  auto settings = read_settings();
  if (!settings) return settings.error();
  header_flags_ = any && written.ok() ? kFlags[spare] : 0;
  settings->flags &= ~kFlags[1];
  L7MARK_TRY(write_settings(*settings));
  return written;
}

// Nobody has looked into the generation since the one before it came: that was long ago.
Status Dataplane::clear_headers(std::uint32_t generation) {
  const int fd = bpf_map__fd(tc_->maps.header_prefixes);
  const std::uint32_t first = generation * L7M_HEADER_TABLES;
  std::vector<l7m_header_key> stale;
  L7MARK_TRY((walk<l7m_header_key, l7m_header_mask>(
      fd, false, [&](const l7m_header_key& key, const l7m_header_mask&) {
        if (key.table >= first && key.table < first + L7M_HEADER_TABLES) stale.push_back(key);
      })));
  for (const l7m_header_key& key : stale)
    if (bpf_map_delete_elem(fd, &key) != 0) return error_from_errno("clear", "map header_prefixes");
  return success();
}

Status Dataplane::fill_headers(std::uint32_t generation, std::span<const HeaderPrefix> prefixes) {
  const int fd = bpf_map__fd(tc_->maps.header_prefixes);
  std::vector<l7m_header_key> keys;
  std::vector<l7m_header_mask> masks;
  for (const HeaderPrefix& prefix : prefixes) {
    l7m_header_key& key = keys.emplace_back();
    key.length = 32U + prefix.length;
    key.table = generation * L7M_HEADER_TABLES + prefix.table;
    std::memcpy(key.key, prefix.key.data(), sizeof(key.key));
    masks.push_back(prefix.mask);
  }
  // Tries take batches from 5.13 on, later than hashes do.
  auto count = static_cast<__u32>(keys.size());
  if (batches_ && bpf_map_update_batch(fd, keys.data(), masks.data(), &count, nullptr) == 0)
    return success();
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (bpf_map_update_elem(fd, &keys[i], &masks[i], BPF_ANY) != 0)
      return error_from_errno("write", "map header_prefixes");
  return success();
}

Status Dataplane::set_marks(std::span<const std::pair<std::uint32_t, std::uint32_t>> marks) {
  const int fd = bpf_map__fd(tc_->maps.marks);
  std::vector<__u32> stale;
  L7MARK_TRY((walk<__u32, __u32>(fd, batches_, [&](__u32 mark, __u32) {
    if (std::none_of(marks.begin(), marks.end(), [&](const auto& m) { return m.first == mark; }))
      stale.push_back(mark);
  })));
  for (const auto& [mark, action] : marks)
    if (bpf_map_update_elem(fd, &mark, &action, BPF_ANY) != 0)
      return error_from_errno("write", "map marks");
  for (const __u32 mark : stale) bpf_map_delete_elem(fd, &mark);
  return success();
}

Status Dataplane::put_service(const l7m_service_key& key, const l7m_promise& promise) {
  const ServiceEntry entry{key, promise};
  return put_services({&entry, 1});
}

Status Dataplane::put_services(std::span<const ServiceEntry> entries) {
  const int fd = bpf_map__fd(tc_->maps.services);
  if (batches_ && entries.size() > 1) {
    std::vector<l7m_service_key> keys;
    std::vector<l7m_promise> values;
    keys.reserve(entries.size());
    values.reserve(entries.size());
    for (const ServiceEntry& entry : entries) {
      keys.push_back(entry.key);
      values.push_back(entry.promise);
    }
    auto count = static_cast<__u32>(keys.size());
    if (bpf_map_update_batch(fd, keys.data(), values.data(), &count, nullptr) == 0)
      return success();
    return error_from_errno("write", "map services");
  }
  for (const ServiceEntry& entry : entries)
    if (bpf_map_update_elem(fd, &entry.key, &entry.promise, BPF_ANY) != 0)
      return error_from_errno("write", "map services");
  return success();
}

Status Dataplane::put_hint(const l7m_hint_key& key, const l7m_promise& promise) {
  if (bpf_map_update_elem(bpf_map__fd(tc_->maps.hints), &key, &promise, BPF_ANY) != 0)
    return error_from_errno("write", "map hints");
  return success();
}

void Dataplane::remove_hint(const l7m_hint_key& key) {
  bpf_map_delete_elem(bpf_map__fd(tc_->maps.hints), &key);
}

Status Dataplane::rewrite_promises(
    const std::function<std::optional<l7m_promise>(l7m_promise)>& call) {
  const auto rewrite = [&](int fd, const auto& key, const l7m_promise& old) {
    if (const auto fresh = call(old); !fresh)
      bpf_map_delete_elem(fd, &key);
    else if (std::memcmp(&*fresh, &old, sizeof(old)) != 0)
      bpf_map_update_elem(fd, &key, &*fresh, BPF_EXIST);
  };
  const int services = bpf_map__fd(tc_->maps.services), hints = bpf_map__fd(tc_->maps.hints);
  L7MARK_TRY((walk<l7m_service_key, l7m_promise>(
      services, batches_,
      [&](const auto& key, const l7m_promise& value) { rewrite(services, key, value); })));
  return walk<l7m_hint_key, l7m_promise>(
      hints, batches_,
      [&](const auto& key, const l7m_promise& value) { rewrite(hints, key, value); });
}

Status Dataplane::for_each_source(
    const std::function<void(const Address&, const l7m_source&)>& call) const {
  return walk<l7m_source_key, l7m_source>(bpf_map__fd(tc_->maps.sources), batches_,
                                          [&](const l7m_source_key& key, const l7m_source& source) {
                                            Address address;
                                            std::memcpy(address.bytes.data(), key.addr,
                                                        sizeof(key.addr));
                                            call(address, source);
                                          });
}

Result<l7m_clock> Dataplane::clock() const {
  l7m_clock out{};
  LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = &out, .data_out = &out,
              .data_size_in = sizeof(out), .data_size_out = sizeof(out), .repeat = 1);
  if (bpf_prog_test_run_opts(bpf_program__fd(control_->progs.l7mark_clock), &run) != 0)
    return error_from_errno("run", "program l7mark_clock");
  return out;
}

CounterValues Dataplane::counters() const {
  CounterValues out{};
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return out;
  std::vector<__u64> values(static_cast<std::size_t>(cpus));
  for (__u32 i = 0; i < L7M_COUNTER_COUNT; ++i) {
    if (bpf_map_lookup_elem(bpf_map__fd(tc_->maps.counters), &i, values.data()) != 0) continue;
    for (const __u64 value : values) out[i] += value;
  }
  return out;
}

}  // namespace l7mark

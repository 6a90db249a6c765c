// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/dataplane.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <l7mark/parse.h>
#include <l7mark_tc.skel.h>
#include <l7mark_xdp.skel.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "dataplane/verifier_log.hpp"
#include "util/log.hpp"

namespace l7mark {

namespace {

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

l7m_key4 to_v4(const FlowKey& key) {
  l7m_key4 out;
  l7m_key_to_v4(&key.raw, &out);
  return out;
}

bool is_v4(const FlowKey& key) {
  return l7m_key_is_v4(&key.raw) != 0;
}

template <class Value>
bool look_up(int fd4, int fd6, const FlowKey& key, Value& out) {
  if (is_v4(key)) {
    const l7m_key4 key4 = to_v4(key);
    return bpf_map_lookup_elem(fd4, &key4, &out) == 0;
  }
  return bpf_map_lookup_elem(fd6, &key.raw, &out) == 0;
}

void remove_key(int fd4, int fd6, const FlowKey& key) {
  if (is_v4(key)) {
    const l7m_key4 key4 = to_v4(key);
    bpf_map_delete_elem(fd4, &key4);
  } else {
    bpf_map_delete_elem(fd6, &key.raw);
  }
}

template <class Key>
FlowKey to_flow_key(const Key& key) {
  FlowKey out;
  if constexpr (std::is_same_v<Key, l7m_key4>)
    l7m_key_from_v4(&key, &out.raw);
  else
    out.raw = key;
  return out;
}

// Batches where the kernel has them, key by key elsewhere. The next key is fetched before the call,
// which may remove the current one.
template <class Key, class Value, class Call>
Status walk(int fd, bool batches, const Call& call) {
  constexpr std::uint32_t kBatch = 4096;
  std::vector<Key> keys;
  std::vector<Value> values;
  if (batches) {
    std::uint32_t size = kBatch;
    keys.resize(size);
    values.resize(size);
    std::uint32_t cursor = 0;
    bool first = true;
    for (;;) {
      std::uint32_t next = 0;
      __u32 count = size;
      const int code = bpf_map_lookup_batch(fd, first ? nullptr : &cursor, &next, keys.data(),
                                            values.data(), &count, nullptr);
      const int cause = errno;
      if (code != 0 && cause == ENOSPC) {  // one bucket holds more than a batch
        size *= 2;
        keys.resize(size);
        values.resize(size);
        continue;
      }
      if (code != 0 && cause != ENOENT) return Error{"walk", "map", cause, {}};
      for (__u32 i = 0; i < count; ++i) call(keys[i], values[i]);
      if (code != 0) return success();
      cursor = next;
      first = false;
    }
  }
  Key key{};
  Key next{};
  bool more = bpf_map_get_next_key(fd, nullptr, &next) == 0;
  while (more) {
    key = next;
    more = bpf_map_get_next_key(fd, &key, &next) == 0;
    Value value{};
    if (bpf_map_lookup_elem(fd, &key, &value) == 0) call(key, value);
  }
  return success();
}

template <class Key>
Status put_family(int fd, bool batches, const std::vector<Key>& keys,
                  const std::vector<l7m_verdict>& values, const std::vector<std::size_t>& positions,
                  std::vector<std::size_t>& full) {
  std::size_t done = 0;
  while (done < keys.size()) {
    if (batches && keys.size() - done > 1) {
      auto count = static_cast<__u32>(keys.size() - done);
      if (bpf_map_update_batch(fd, &keys[done], &values[done], &count, nullptr) == 0)
        return success();
      const int cause = errno;
      if (cause == EFAULT || cause == EPERM) return Error{"write", "verdicts", cause, {}};
      done += count;
      if (done >= keys.size()) break;
    }
    // One by one for what a batch stopped at: the entry after it may be an update and still fit.
    if (bpf_map_update_elem(fd, &keys[done], &values[done], BPF_ANY) != 0) {
      if (errno != E2BIG && errno != ENOMEM) return error_from_errno("write", "verdict");
      full.push_back(positions[done]);
    }
    ++done;
  }
  return success();
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
  out.config_flags_ = options.replay ? L7M_CFG_REPLAY : 0;
  out.adopted_ = paths != nullptr && std::filesystem::exists(paths->map("flows4"));

  out.tc_.reset(l7mark_tc::open());
  if (!out.tc_) return error_from_errno("open", "the BPF objects");
  l7mark_tc& tc = *out.tc_;
  bpf_map__set_max_entries(tc.maps.flows4, options.flows);
  bpf_map__set_max_entries(tc.maps.flows6, options.flows);
  bpf_map__set_max_entries(tc.maps.candidates4, options.candidates);
  bpf_map__set_max_entries(tc.maps.candidates6, options.candidates);
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
  const VerifierLog log(tc.obj);
  if (const int code = l7mark_tc::load(&tc); code != 0) return load_error(code, log.reason());
  for (std::uint32_t i = 0; i < out.rings(); ++i) {
    const int fd = out.ring_fd(i);
    if (bpf_map_update_elem(bpf_map__fd(tc.maps.rings), &i, &fd, BPF_ANY) != 0)
      return error_from_errno("set up", "map rings");
  }
  if (paths != nullptr) {
    // For `tc filter … bpf da pinned`; replaced, because this one may be newer.
    const std::string path = paths->programs() + "/classid";
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    if (bpf_obj_pin(bpf_program__fd(tc.progs.l7mark_classid), path.c_str()) != 0)
      return error_from_errno("pin", path);
  }
  return out;
}

int Dataplane::program_fd(const char* name) const {
  const bpf_program* program = bpf_object__find_program_by_name(tc_->obj, name);
  return program != nullptr ? bpf_program__fd(program) : -1;
}

int Dataplane::map_fd(const char* name) const {
  return bpf_object__find_map_fd_by_name(tc_->obj, name);
}

Result<bpf_object*> Dataplane::open_xdp() const {
  l7mark_xdp* xdp = l7mark_xdp::open();
  if (xdp == nullptr) return error_from_errno("open", "the XDP object");
  xdp->rodata->l7m_config.parse = options_.parse;
  __u32 flags = config_flags_;
  if (xdp_load_bytes_) flags |= L7M_CFG_XDP_LOAD_BYTES;
  if (xdp_frags_) flags |= L7M_CFG_XDP_FRAGS;
  xdp->rodata->l7m_config.flags = flags;
  // libxdp takes the object itself; the skeleton around it holds nothing else of worth.
  bpf_object* object = std::exchange(xdp->obj, nullptr);
  *xdp->skeleton->obj = nullptr;
  l7mark_xdp::destroy(xdp);
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    if (xdp_frags_) bpf_program__set_flags(program, BPF_F_XDP_HAS_FRAGS);
  }
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (!is_shared(map)) continue;
    if (bpf_map__reuse_fd(map, map_fd(bpf_map__name(map))) != 0) {
      Error error = error_from_errno("share map", bpf_map__name(map));
      bpf_object__close(object);
      return error;
    }
  }
  return object;
}

Status Dataplane::write_settings(const l7m_settings& settings) {
  const __u32 zero = 0;
  if (bpf_map_update_elem(bpf_map__fd(tc_->maps.settings), &zero, &settings, BPF_ANY) != 0)
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

Result<std::vector<std::size_t>> Dataplane::put_verdicts(std::span<const VerdictEntry> entries) {
  std::vector<l7m_key4> keys4;
  std::vector<l7m_key> keys6;
  std::vector<l7m_verdict> values4, values6;
  std::vector<std::size_t> positions4, positions6, full;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (is_v4(entries[i].key)) {
      keys4.push_back(to_v4(entries[i].key));
      values4.push_back(entries[i].verdict);
      positions4.push_back(i);
    } else {
      keys6.push_back(entries[i].key.raw);
      values6.push_back(entries[i].verdict);
      positions6.push_back(i);
    }
  }
  L7MARK_TRY(put_family(bpf_map__fd(tc_->maps.flows4), batches_, keys4, values4, positions4, full));
  L7MARK_TRY(put_family(bpf_map__fd(tc_->maps.flows6), batches_, keys6, values6, positions6, full));
  return full;
}

std::optional<l7m_verdict> Dataplane::verdict(const FlowKey& key) const {
  l7m_verdict out{};
  if (!look_up(bpf_map__fd(tc_->maps.flows4), bpf_map__fd(tc_->maps.flows6), key, out))
    return std::nullopt;
  return out;
}

void Dataplane::remove_verdict(const FlowKey& key) {
  remove_key(bpf_map__fd(tc_->maps.flows4), bpf_map__fd(tc_->maps.flows6), key);
}

std::optional<l7m_verdict> Dataplane::take_verdict(const FlowKey& key) {
  return take<l7m_verdict>(bpf_map__fd(tc_->maps.flows4), bpf_map__fd(tc_->maps.flows6), key);
}

template <class Value>
std::optional<Value> Dataplane::take(int fd4, int fd6, const FlowKey& key) {
  Value out{};
  if (takes_) {
    const l7m_key4 key4 = to_v4(key);
    const int code = is_v4(key) ? bpf_map_lookup_and_delete_elem(fd4, &key4, &out)
                                : bpf_map_lookup_and_delete_elem(fd6, &key.raw, &out);
    if (code == 0) return out;
    if (errno == ENOENT) return std::nullopt;
    takes_ = false;
  }
  if (!look_up(fd4, fd6, key, out)) return std::nullopt;
  remove_key(fd4, fd6, key);
  return out;
}

Status Dataplane::for_each_verdict(
    const std::function<void(const FlowKey&, const l7m_verdict&)>& call) const {
  const auto pass = [&](const auto& key, const l7m_verdict& value) {
    call(to_flow_key(key), value);
  };
  L7MARK_TRY((walk<l7m_key4, l7m_verdict>(bpf_map__fd(tc_->maps.flows4), batches_, pass)));
  return walk<l7m_key, l7m_verdict>(bpf_map__fd(tc_->maps.flows6), batches_, pass);
}

Status Dataplane::for_each_candidate(
    const std::function<void(const FlowKey&, const l7m_candidate&)>& call) const {
  const auto pass = [&](const auto& key, const l7m_candidate& value) {
    call(to_flow_key(key), value);
  };
  L7MARK_TRY((walk<l7m_key4, l7m_candidate>(bpf_map__fd(tc_->maps.candidates4), batches_, pass)));
  return walk<l7m_key, l7m_candidate>(bpf_map__fd(tc_->maps.candidates6), batches_, pass);
}

std::optional<l7m_candidate> Dataplane::candidate(const FlowKey& key) const {
  l7m_candidate out{};
  if (!look_up(bpf_map__fd(tc_->maps.candidates4), bpf_map__fd(tc_->maps.candidates6), key, out))
    return std::nullopt;
  return out;
}

std::optional<l7m_candidate> Dataplane::take_candidate(const FlowKey& key) {
  return take<l7m_candidate>(bpf_map__fd(tc_->maps.candidates4), bpf_map__fd(tc_->maps.candidates6),
                             key);
}

Status Dataplane::put_candidate(const FlowKey& key, const l7m_candidate& value) {
  int code = 0;
  if (is_v4(key)) {
    const l7m_key4 key4 = to_v4(key);
    code = bpf_map_update_elem(bpf_map__fd(tc_->maps.candidates4), &key4, &value, BPF_ANY);
  } else {
    code = bpf_map_update_elem(bpf_map__fd(tc_->maps.candidates6), &key.raw, &value, BPF_ANY);
  }
  if (code != 0) return error_from_errno("write", "candidate");
  return success();
}

Status Dataplane::edit(std::span<l7m_edit> edits) {
  while (!edits.empty()) {
    const auto batch = edits.first(std::min<std::size_t>(edits.size(), L7M_EDIT_BATCH));
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = batch.data(), .data_out = batch.data(),
                .data_size_in = static_cast<__u32>(batch.size_bytes()),
                .data_size_out = static_cast<__u32>(batch.size_bytes()), .repeat = 1);
    if (bpf_prog_test_run_opts(bpf_program__fd(tc_->progs.l7mark_edit), &run) != 0)
      return error_from_errno("run", "program l7mark_edit");
    edits = edits.subspan(batch.size());
  }
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

Result<l7m_clock> Dataplane::clock() const {
  l7m_clock out{};
  LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = &out, .data_out = &out,
              .data_size_in = sizeof(out), .data_size_out = sizeof(out), .repeat = 1);
  if (bpf_prog_test_run_opts(bpf_program__fd(tc_->progs.l7mark_clock), &run) != 0)
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

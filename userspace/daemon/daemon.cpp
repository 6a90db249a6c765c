// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/daemon.hpp"

#include <cap-ng.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <csignal>
#include <ctime>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "daemon/control.hpp"
#include "daemon/core.hpp"
#include "daemon/notify.hpp"
#include "daemon/scheduling.hpp"
#include "daemon/state_file.hpp"
#include "daemon/workers.hpp"
#include "dataplane/attach.hpp"
#include "dataplane/dataplane.hpp"
#include "dataplane/features.hpp"
#include "dataplane/programs.hpp"
#include "util/log.hpp"
#include "util/netns.hpp"

namespace l7mark {

namespace {

using Json = nlohmann::ordered_json;

// Sends of workers that are read before their verdicts are written: few enough to be quick, enough
// to fill a batch under load.
constexpr std::size_t kSendsPerRound = 8;

struct LoadedPolicy {
  std::shared_ptr<const Policy> policy;
  RecordNames names;
  EngineOptions engine;
};

// Of each worker: flows with resolvers whose messages are read on.
constexpr std::size_t kFollowedFlows = 4096;

ClassifierOptions classifier_options(const Policy& policy) {
  ClassifierOptions out;
  out.idle_ns = std::uint64_t{policy.sampling.idle_timeout} * 1'000'000'000;
  out.inside = policy.inside;
  out.max_followed = kFollowedFlows;
  return out;
}

// The engine only lends its names: packets are looked at by workers alone.
Result<LoadedPolicy> load(const std::string& path) {
  LoadedPolicy out;
  auto protocols = load_protocols_file_setting(path);
  if (!protocols) return protocols.error();
  out.engine.protocols_file = *protocols;
  auto engine = Engine::make(out.engine);
  if (!engine) return engine.error();
  out.names = RecordNames::of(*engine);
  auto policy = load_policy(path, out.names.catalog);
  if (!policy) return policy.error();
  out.policy = std::make_shared<const Policy>(std::move(*policy));
  return out;
}

void say_warnings(const Policy& policy) {
  for (const std::string& warning : policy.warnings) log_warning("{}", warning);
}

class Daemon {
 public:
  explicit Daemon(const DaemonOptions& options) : options_(options), pins_{options.instance} {}

  Status start();
  void loop();
  void stop();

 private:
  Status start_parts(const LoadedPolicy& loaded);
  Status attach_one(const InterfaceConfig& config);
  void take_out();
  void remember();
  void check_interfaces();
  void check_order();
  void tell_interfaces();
  Status watch_conntrack();
  Result<std::string> reload();
  ControlServer::Reply handle(const std::string& command);
  Json status();
  bool on_signal();

  DaemonOptions options_;
  PinPaths pins_;
  AttachPaths paths_;  // of the network namespace that start() enters
  Fd signals_;
  Fd timer_;
  Fd epoll_;
  std::optional<ControlServer> control_;
  std::optional<Features> features_;
  std::optional<Dataplane> dataplane_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<WorkerPool> workers_;
  EngineOptions engine_;
  bool conntrack_watched_ = false;
  std::map<std::string, unsigned> attached_;  // by us: name and index
  std::set<std::string> users_;               // attached by the user with `l7mark load`
  std::map<std::string, std::vector<ProgramAhead>> ahead_;  // that was warned of, by interface
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

Status Daemon::start() {
  if (!options_.netns.empty()) L7MARK_TRY(enter_network_namespace(options_.netns));
  paths_ = attach_paths(pins_);
  auto loaded = load(options_.policy);
  if (!loaded) return loaded.error();
  say_warnings(*loaded->policy);
  if (capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN) == 0)
    return Error{"start", "l7markd", EPERM,
                 "needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"};
  for (const InterfaceConfig& config : loaded->policy->interfaces) {
    auto found = describe_interface(config.name);
    if (!found) return found.error();
  }
  auto control = ControlServer::listen(control_path(options_.instance));
  if (!control) return control.error();
  control_.emplace(std::move(*control));

  sigset_t mask;
  sigemptyset(&mask);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&mask, signal);
  sigprocmask(SIG_BLOCK, &mask, nullptr);
  signals_ = Fd(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  timer_ = Fd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!signals_ || !timer_ || !epoll_) return error_from_errno("start", "the main loop");
  const itimerspec second{{1, 0}, {1, 0}};
  timerfd_settime(timer_.get(), 0, &second, nullptr);

  if (Status done = start_parts(*loaded); !done.ok()) {
    take_out();
    return done;
  }
  return success();
}

Status Daemon::start_parts(const LoadedPolicy& loaded) {
  const Policy& policy = *loaded.policy;
  auto features = probe_features();
  if (!features) return features.error();
  features_ = *features;

  DaemonState before = read_state(state_path(options_.instance));
  // The one before worked in another network namespace: its interfaces and sets are there.
  if (before.netns != paths_.netns && !before.netns.empty()) {
    if (!before.interfaces.empty())
      if (const Status done = detach_elsewhere(before.netns, before.interfaces, paths_); !done.ok())
        log_warning("{}", done.error().message());
    before = {};
  }
  for (const std::string& netns : other_namespaces(paths_))
    log_info("interfaces in network namespace {} stay attached, and share the maps", netns);
  for (const Attachment& there : list_attachments(paths_))
    if (!before.interfaces.contains(there.name)) users_.insert(there.name);

  auto dataplane = Dataplane::open(pins_, dataplane_options(policy), *features_);
  if (!dataplane) return dataplane.error();
  dataplane_.emplace(std::move(*dataplane));
  const auto first = dataplane_->clock();
  if (!first) return first.error();

  std::vector<int> rings;
  for (std::uint32_t i = 0; i < dataplane_->rings(); ++i) rings.push_back(dataplane_->ring_fd(i));
  engine_ = loaded.engine;
  workers_ = std::make_unique<WorkerPool>(
      rings, engine_, classifier_options(policy),
      WorkerPool::Events{
          [this](std::span<const Message> messages) { core_->on_messages(messages); },
          [this](std::uint32_t worker, std::optional<FlowKey> culprit) {
            core_->on_worker_died(worker, culprit);
          }});
  L7MARK_TRY(workers_->start());

  // Long enough apart to tell HZ; the workers set up their engines meanwhile.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto second = dataplane_->clock();
  if (!second) return second.error();
  core_ = std::make_unique<Core>(
      *dataplane_, loaded.policy, loaded.names, JiffiesClock(*first, *second),
      Core::Events{[this] { return control_->has_followers(); },
                   [this](std::string_view line) { control_->publish(line); },
                   [this] {
                     workers_->process(kSendsPerRound);
                     core_->commit();
                   }},
      before.sets);
  L7MARK_TRY(core_->start());
  remember();

  for (const InterfaceConfig& config : policy.interfaces) L7MARK_TRY(attach_one(config));
  // Those of an earlier run that the policy no longer names.
  for (const std::string& name : before.interfaces)
    if (!attached_.contains(name)) L7MARK_TRY(detach(name, paths_));
  remember();
  tell_interfaces();
  L7MARK_TRY(core_->set_sampling(true));

  const std::pair<int, std::uint32_t> sources[] = {
      {signals_.get(), 0}, {timer_.get(), 1}, {control_->fd(), 2}, {workers_->fd(), 3}};
  for (const auto& [fd, number] : sources) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = number;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      return error_from_errno("start", "the main loop");
  }
  L7MARK_TRY(watch_conntrack());
  control_->set_handler(
      [this](const std::string& command, const Json&) { return handle(command); });
  return success();
}

// From the first policy on that wants marks in conntrack.
Status Daemon::watch_conntrack() {
  const int fd = core_->conntrack_events_fd();
  if (fd < 0 || conntrack_watched_) return success();
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = 4;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return error_from_errno("watch", "events of conntrack");
  conntrack_watched_ = true;
  return success();
}

Status Daemon::attach_one(const InterfaceConfig& config) {
  auto facts = describe_interface(config.name);
  if (!facts) return facts.error();
  auto done = attach(
      config, *facts, program_set(*dataplane_), [this] { return dataplane_->open_xdp(); },
      *features_, paths_);
  if (!done) return done.error();
  attached_[config.name] = facts->ifindex;
  ahead_[config.name] = std::move(done->ahead);
  return success();
}

// What this daemon and those before it put in; never what the user attached.
void Daemon::remember() {
  DaemonState state;
  state.netns = paths_.netns;
  for (const auto& [name, index] : attached_)
    if (!users_.contains(name)) state.interfaces.insert(name);
  if (core_) state.sets = core_->our_sets();
  if (const Status done = write_state(state_path(options_.instance), state); !done.ok())
    log_warning("{}", done.error().message());
}

void Daemon::tell_interfaces() {
  std::vector<std::pair<std::string, std::uint32_t>> indexes;
  for (const Attachment& there : list_attachments(paths_))
    if (const unsigned index = if_nametoindex(there.name.c_str()); index != 0)
      indexes.emplace_back(there.name, index);
  core_->set_interfaces(indexes);
}

// Interfaces come and go (ppp, VLANs, a cable's other end): ours are attached again when they are
// back under another index.
void Daemon::check_interfaces() {
  bool changed = false;
  for (const InterfaceConfig& config : core_->policy().interfaces) {
    const auto known = attached_.find(config.name);
    const unsigned index = if_nametoindex(config.name.c_str());
    if (known != attached_.end() && known->second == index) continue;
    if (index == 0) {
      if (known == attached_.end()) continue;
      log_warning("interface {} is gone; it is attached again when it is back", config.name);
      attached_.erase(known);
      changed = true;
      continue;
    }
    if (const Status done = attach_one(config); !done.ok()) {
      log_warning("{}", done.error().message());
      attached_[config.name] = index;  // said once; tried again with the next index
      continue;
    }
    log_info("interface {} is attached again", config.name);
    changed = true;
  }
  if (!changed) return;
  tell_interfaces();
  remember();
}

// Others may come before us at any time: they are told of once, and again when they come back.
void Daemon::check_order() {
  for (const auto& [name, index] : attached_) {
    std::vector<ProgramAhead>& known = ahead_[name];
    std::vector<ProgramAhead> now = programs_ahead(name, index, paths_);
    if (now == known) continue;
    warn_of_ahead(name, now, known);
    if (now.empty()) log_info("{}: l7mark is first at TC again", name);
    known = std::move(now);
  }
}

Result<std::string> Daemon::reload() {
  auto loaded = load(options_.policy);
  if (!loaded) return loaded.error();
  for (const InterfaceConfig& config : loaded->policy->interfaces) {
    auto facts = describe_interface(config.name);
    if (!facts) return facts.error();
  }
  const Policy old = core_->policy();
  L7MARK_TRY(core_->reload(loaded->policy, loaded->names));
  if (const Status done = watch_conntrack(); !done.ok()) log_error("{}", done.error().message());
  say_warnings(*loaded->policy);
  for (const InterfaceConfig& config : loaded->policy->interfaces) {
    const auto same =
        std::find_if(old.interfaces.begin(), old.interfaces.end(),
                     [&](const auto& o) { return o.name == config.name && o.mode == config.mode; });
    if (same != old.interfaces.end() && attached_.contains(config.name)) continue;
    if (const Status done = attach_one(config); !done.ok()) log_error("{}", done.error().message());
  }
  for (const InterfaceConfig& config : old.interfaces) {
    const auto& now = loaded->policy->interfaces;
    if (std::any_of(now.begin(), now.end(), [&](const auto& n) { return n.name == config.name; }))
      continue;
    if (!users_.contains(config.name))
      if (const Status done = detach(config.name, paths_); !done.ok())
        log_warning("{}", done.error().message());
    attached_.erase(config.name);
  }
  if (loaded->engine.protocols_file != engine_.protocols_file ||
      !loaded->engine.protocols_file.empty() ||
      classifier_options(*loaded->policy) != classifier_options(old)) {
    engine_ = loaded->engine;
    workers_->set_options(engine_, classifier_options(*loaded->policy));
    workers_->stop();
    L7MARK_TRY(workers_->start());
  }
  std::string note = "policy " + options_.policy + " is in force";
  const DataplaneOptions was = dataplane_options(old);
  const DataplaneOptions is = dataplane_options(*loaded->policy);
  if (was.flows != is.flows || was.candidates != is.candidates || was.services != is.services ||
      was.hints != is.hints || was.ring_bytes != is.ring_bytes || was.rings != is.rings ||
      was.parse != is.parse)
    note += "; its limits, workers, decapsulate and vlan take effect with the next start";
  tell_interfaces();
  remember();
  log_info("{}", note);
  return note;
}

Json Daemon::status() {
  Json out;
  out["type"] = "status";
  out["version"] = L7MARK_VERSION;
  out["ndpi"] = Engine::version();
  out["instance"] = options_.instance;
  out["pid"] = getpid();
  out["uptime_seconds"] =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - started_)
          .count();
  out["ready"] = workers_->all_ready();
  out["interfaces"] = Json::array();
  for (const Attachment& there : list_attachments(paths_)) {
    Json entry = {{"name", there.name},
                  {"ifindex", there.ifindex},
                  {"requested", attach_mode_name(there.requested)},
                  {"mode", attach_mode_name(there.mode)},
                  {"tc", there.tc}};
    if (!there.xdp.empty()) {
      entry["xdp"] = there.xdp;
      entry["multi_buffer"] = there.frags;
    }
    entry["link_layer"] = there.link_layer;
    entry["attached"] = there.present;
    entry["ahead"] = Json::array();
    for (const ProgramAhead& one : there.ahead) {
      Json ahead = {{"hook", tc_direction_name(one.direction)}, {"name", one.name}};
      if (one.id != 0) ahead["program"] = one.id;
      if (one.preference != 0) ahead["preference"] = one.preference;
      entry["ahead"].push_back(std::move(ahead));
    }
    entry["by"] = users_.contains(there.name) ? "load" : "daemon";
    out["interfaces"].push_back(std::move(entry));
  }
  out["classid_program"] = pins_.classid_program();
  out["workers"] = Json::array();
  for (const WorkerFigures& worker : workers_->figures())
    out["workers"].push_back({{"pid", worker.pid},
                              {"ready", worker.ready},
                              {"flows", worker.flows},
                              {"samples", worker.samples},
                              {"notices", worker.notices},
                              {"answers", worker.answers},
                              {"malformed", worker.malformed},
                              {"evicted", worker.evicted},
                              {"dns_answers", worker.dns_answers},
                              {"dns_unasked", worker.dns_unasked},
                              {"skipped", worker.skipped},
                              {"restarts", worker.restarts}});
  core_->status(out);
  return out;
}

ControlServer::Reply Daemon::handle(const std::string& command) {
  if (command == "status") return {status(), {}};
  if (command == "flows") return {Json::object(), core_->records()};
  if (command == "reload") {
    notify_systemd("RELOADING=1");
    const auto done = reload();
    notify_systemd("READY=1");
    if (done) return {Json({{"message", *done}}), {}};
    log_error("reload refused, the old policy goes on: {}", done.error().message());
    return {Json({{"ok", false}, {"error", done.error().message()}}), {}};
  }
  return {Json({{"ok", false}, {"error", "unknown command " + command}}), {}};
}

// False when it is time to go.
bool Daemon::on_signal() {
  signalfd_siginfo info{};
  bool go_on = true;
  while (read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) go_on = false;
    if (info.ssi_signo == SIGCHLD) workers_->reap();
    if (info.ssi_signo == SIGHUP) handle("reload");
  }
  return go_on;
}

void Daemon::loop() {
  notify_systemd("READY=1");
  log_info("l7markd {} is ready: instance {}, policy {}", L7MARK_VERSION, options_.instance,
           options_.policy);
  for (;;) {
    epoll_event events[5];
    const int count = epoll_wait(epoll_.get(), events, 5, -1);
    for (int i = 0; i < count; ++i) {
      switch (events[i].data.u32) {
        case 0:
          if (!on_signal()) return;
          break;
        case 1: {
          std::uint64_t expirations = 0;
          if (read(timer_.get(), &expirations, sizeof(expirations)) > 0) {
            workers_->tick();
            core_->tick();
            check_interfaces();
            check_order();
          }
          break;
        }
        case 2:
          control_->process();
          break;
        case 4:
          core_->on_conntrack_events();
          break;
        default:
          workers_->process(kSendsPerRound);
          core_->commit();
      }
    }
  }
}

void Daemon::take_out() {
  if (workers_) workers_->stop();
  if (options_.keep && core_) {
    if (const Status done = core_->set_sampling(false); !done.ok())
      log_warning("{}", done.error().message());
    remember();
    return;
  }
  for (const auto& [name, index] : attached_) {
    if (users_.contains(name)) continue;
    if (const Status done = detach(name, paths_); !done.ok())
      log_warning("{}", done.error().message());
  }
  if (core_) core_->withdraw();
  unlink(state_path(options_.instance).c_str());
  if (users_.empty() && other_namespaces(paths_).empty()) {
    dataplane_.reset();
    if (const Status done = remove_pins(pins_); !done.ok())
      log_warning("{}", done.error().message());
  } else if (core_) {
    if (const Status done = core_->set_sampling(false); !done.ok())
      log_warning("{}", done.error().message());
  }
}

void Daemon::stop() {
  notify_systemd("STOPPING=1");
  take_out();
  log_info("l7markd has ended{}", options_.keep ? "; the kernel goes on with what it knows" : "");
}

}  // namespace

int run_daemon(const DaemonOptions& options) {
  ask_for_short_slices();
  Daemon daemon(options);
  if (const Status started = daemon.start(); !started.ok()) {
    log_error("{}", started.error().message());
    return 1;
  }
  daemon.loop();
  daemon.stop();
  return 0;
}

}  // namespace l7mark

// SPDX-License-Identifier: GPL-2.0-only
#include "lab.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <utility>

#include "daemon/client.hpp"
#include "dataplane/pins.hpp"
#include "util/fd.hpp"
#include "util/log.hpp"
#include "util/netns.hpp"

namespace l7mark::bench {

namespace fs = std::filesystem;

namespace {

constexpr const char* kRoles[] = {"client", "gateway", "server"};

void nap(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  while (line.empty() && std::getline(in, line)) {
  }
  return line;
}

// Whatever is left of the group ends: politely, so that a daemon takes out what it put in.
void end_group(pid_t group) {
  for (int i = 0; i < 200; ++i) {
    if (kill(-group, i < 150 ? SIGTERM : SIGKILL) != 0) return;
    nap(0.1);
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
  }
}

void take_away(const Lab& lab) {
  for (const char* role : kRoles)
    if (fs::exists("/run/netns/" + lab.ns(role)))
      if (const Status done = run(lab, {"ip", "netns", "del", lab.ns(role)}); !done.ok())
        log_warning("{}", done.error().message());
  std::error_code ignored;
  for (const char* const parent : {"/sys/fs/bpf/l7mark", "/run/l7mark"})
    for (const std::string& name : list_directory(parent))
      if (name == lab.instance || name.starts_with(lab.instance + "-") ||
          name.starts_with(lab.instance + "."))
        fs::remove_all(std::string(parent) + "/" + name, ignored);
  fs::remove_all(lab.folder, ignored);
}

// Of the form "PID (NAME) STATE PPID …"; a name may hold anything.
pid_t parent_of(const fs::path& folder) {
  std::ifstream in(folder / "stat");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto end = text.rfind(')');
  if (end == std::string::npos) return -1;
  std::istringstream rest(text.substr(end + 1));
  std::string state;
  pid_t parent = -1;
  rest >> state >> parent;
  return parent;
}

template <class F>
void each_process(const F& work) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") == std::string::npos)
      work(static_cast<pid_t>(std::stol(name)), entry.path());
  }
}

double threads_seconds(pid_t pid) {
  double seconds = 0;
  std::error_code ignored;
  for (const auto& task : fs::directory_iterator(fmt::format("/proc/{}/task", pid), ignored)) {
    std::ifstream in(task.path() / "schedstat");
    double nanoseconds = 0;
    if (in >> nanoseconds) seconds += nanoseconds / 1e9;
  }
  return seconds;
}

std::string binary(const std::string& name) {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path() / name;
}

}  // namespace

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// --- the lab -------------------------------------------------------------------------------------

int in_lab(const std::function<int(const Lab&)>& work) {
  if (geteuid() != 0) {
    log_error("cannot make network namespaces: needs root");
    return 1;
  }
  Lab lab;
  lab.prefix = fmt::format("l7mb-{}", getpid());
  lab.instance = fmt::format("bench-{}", getpid());
  const char* temporary = std::getenv("TMPDIR");
  lab.folder =
      std::string(temporary != nullptr ? temporary : "/tmp") + "/" + lab.prefix + ".XXXXXX";
  if (mkdtemp(lab.folder.data()) == nullptr) {
    log_error("{}", error_from_errno("make", lab.folder).message());
    return 1;
  }
  sigset_t wanted;
  sigset_t before;
  sigemptyset(&wanted);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&wanted, number);
  sigprocmask(SIG_BLOCK, &wanted, &before);
  // What the worker leaves behind when it crashes comes to us.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    if (getppid() != parent) _exit(1);
    const int status = work(lab);
    std::fflush(nullptr);
    _exit(status);
  }
  if (child < 0) {
    log_error("{}", error_from_errno("start", "the bench").message());
    take_away(lab);
    return 1;
  }
  setpgid(child, child);
  int exit_status = 1;
  for (;;) {
    siginfo_t info{};
    const int number = sigwaitinfo(&wanted, &info);
    if (number == SIGINT || number == SIGTERM || number == SIGHUP) {
      kill(child, SIGTERM);
      exit_status = 128 + number;
    }
    int status = 0;
    if (waitpid(child, &status, WNOHANG) != child) continue;
    if (WIFEXITED(status)) {
      exit_status = WEXITSTATUS(status);
    } else if (exit_status < 128) {
      log_error("the bench was ended by signal {}", WTERMSIG(status));
    }
    break;
  }
  end_group(child);
  take_away(lab);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return exit_status;
}

Status make_path(const Lab& lab) {
  for (const char* role : kRoles) {
    const std::string ns = lab.ns(role);
    L7MARK_TRY(run(lab, {"ip", "netns", "add", ns}));
    L7MARK_TRY(run(lab, {"ip", "link", "set", "lo", "up"}, ns));
    L7MARK_TRY(run(lab,
                   {"sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
                    "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.all.disable_ipv6=1",
                    "net.ipv6.conf.default.disable_ipv6=1"},
                   ns));
  }
  struct Link {
    const char* role;
    const char* device;
    const char* address;
    const char* near_device;
    const char* near_address;
  };
  for (const Link& link : {Link{"client", "eth0", kClientAddress, "lan0", "10.77.1.1"},
                           Link{"server", "eth0", kServerAddress, "wan0", "198.51.100.1"}}) {
    const std::string far = lab.ns(link.role);
    const std::string near = lab.ns("gateway");
    L7MARK_TRY(run(lab, {"ip", "link", "add", link.device, "netns", far, "type", "veth", "peer",
                         "name", link.near_device, "netns", near}));
    L7MARK_TRY(run(
        lab, {"ip", "addr", "add", std::string(link.address) + "/24", "dev", link.device}, far));
    L7MARK_TRY(run(
        lab, {"ip", "addr", "add", std::string(link.near_address) + "/24", "dev", link.near_device},
        near));
    L7MARK_TRY(run(lab, {"ip", "link", "set", link.device, "up"}, far));
    L7MARK_TRY(run(lab, {"ip", "link", "set", link.near_device, "up"}, near));
    L7MARK_TRY(run(lab, {"ip", "route", "add", "default", "via", link.near_address}, far));
  }
  return success();
}

// --- processes -----------------------------------------------------------------------------------

Process::Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    stop();
    pid_ = std::exchange(other.pid_, -1);
  }
  return *this;
}

Result<Process> Process::fork_off(const std::string& netns, const std::function<int()>& work) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return error_from_errno("start", "a process");
  if (pid > 0) return Process(pid);
  if (!netns.empty()) {
    if (const Status done = enter_network_namespace(netns); !done.ok()) {
      log_error("{}", done.error().message());
      _exit(1);
    }
  }
  _exit(work());
}

Result<Process> Process::start(const std::vector<std::string>& words, const std::string& netns,
                               const std::string& log) {
  return fork_off(netns, [&] {
    std::vector<std::string> copy = words;
    std::vector<char*> arguments;
    arguments.reserve(copy.size() + 1);
    for (std::string& word : copy) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (out < 0 || in < 0) return 126;
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    const std::string why =
        fmt::format("cannot run {}: {}\n", words[0], error_from_errno("", "").message());
    return write(STDERR_FILENO, why.data(), why.size()) > 0 ? 127 : 126;
  });
}

bool Process::running() {
  if (pid_ < 0) return false;
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0) return false;
  return info.si_pid == 0;
}

void Process::stop(int signal_number) {
  if (pid_ < 0) return;
  kill(pid_, signal_number);
  for (int i = 0; i < 1000 && running(); ++i) nap(0.01);
  kill(pid_, SIGKILL);
  waitpid(std::exchange(pid_, -1), nullptr, 0);
}

Result<Process::Ended> Process::wait(double seconds) {
  const double end = now_seconds() + seconds;
  while (running()) {
    if (now_seconds() > end) {
      stop(SIGKILL);
      return Error{"wait for", "a process of the bench", ETIMEDOUT, {}};
    }
    nap(0.002);
  }
  int status = 0;
  rusage usage{};
  if (wait4(std::exchange(pid_, -1), &status, 0, &usage) < 0)
    return error_from_errno("wait for", "a process of the bench");
  Ended out;
  if (WIFEXITED(status)) out.status = WEXITSTATUS(status);
  const auto seconds_of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  out.cpu_seconds = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
  return out;
}

Status run(const Lab& lab, const std::vector<std::string>& words, const std::string& netns) {
  const std::string log = lab.folder + "/run.log";
  auto process = Process::start(words, netns, log);
  if (!process) return process.error();
  const auto ended = process->wait(30);
  if (!ended) return ended.error();
  if (ended->status == 0) return success();
  std::string all;
  for (const std::string& word : words) all += all.empty() ? word : " " + word;
  return Error{"run", all, 0, first_line(log)};
}

double cpu_seconds(pid_t pid) {
  double seconds = threads_seconds(pid);
  each_process([&](pid_t child, const fs::path& folder) {
    if (parent_of(folder) == pid) seconds += threads_seconds(child);
  });
  return seconds;
}

double softirq_seconds() {
  static const std::vector<pid_t> threads = [] {
    std::vector<pid_t> out;
    each_process([&](pid_t pid, const fs::path& folder) {
      if (first_line(folder / "comm").starts_with("ksoftirqd/")) out.push_back(pid);
    });
    return out;
  }();
  double seconds = 0;
  for (const pid_t pid : threads) seconds += threads_seconds(pid);
  return seconds;
}

// --- the daemon ----------------------------------------------------------------------------------

Result<Process> start_daemon(const Lab& lab, const std::string& policy) {
  const std::string log = lab.folder + "/l7markd.log";
  const std::string file = lab.folder + "/policy.jsonc";
  if (!(std::ofstream(file) << policy).flush()) return Error{"write", file, EIO, {}};
  const std::string program = binary("l7markd");
  if (!fs::exists(program))
    return Error{"start", program, ENOENT, "it must be built beside l7mark-bench"};
  auto daemon = Process::start({program, "--policy", file, "--instance", lab.instance, "--netns",
                                lab.ns("gateway"), "--log-level", "warning"},
                               {}, log);
  if (!daemon) return daemon.error();
  const double end = now_seconds() + 30;
  while (now_seconds() < end && daemon->running()) {
    nap(0.02);
    auto client = ControlClient::connect(lab.instance, std::chrono::seconds(5));
    if (!client) continue;
    const auto status = client->request("status", {});
    if (status && status->value("ready", false)) return daemon;
  }
  return Error{"start", "l7markd", 0, first_line(log)};
}

Result<std::vector<std::uint64_t>> daemon_counters(const Lab& lab,
                                                   const std::vector<std::string>& names) {
  auto client = ControlClient::connect(lab.instance, std::chrono::seconds(10));
  if (!client) return client.error();
  const auto status = client->request("status", {});
  if (!status) return status.error();
  const auto counters = status->find("counters");
  std::vector<std::uint64_t> out;
  out.reserve(names.size());
  for (const std::string& name : names)
    out.push_back(counters == status->end() ? 0 : counters->value(name, std::uint64_t{0}));
  return out;
}

}  // namespace l7mark::bench

// SPDX-License-Identifier: GPL-2.0-only
#include "publish_bench.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "publish/conntrack.hpp"
#include "publish/ipset.hpp"
#include "publish/nft.hpp"
#include "util/fd.hpp"

namespace l7mark {

namespace {

// A file of its own in $TMPDIR, removed when it goes.
class ScratchFile {
 public:
  static Result<ScratchFile> create() {
    const char* folder = std::getenv("TMPDIR");
    std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/l7mark-bench.XXXXXX";
    const Fd fd(mkstemp(path.data()));
    if (!fd) return error_from_errno("create", path);
    return ScratchFile(std::move(path));
  }
  ScratchFile(ScratchFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  ScratchFile& operator=(ScratchFile&&) = delete;
  ~ScratchFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit ScratchFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

Status run(std::vector<std::string> words, const std::string& input = {}) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (!input.empty())
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, input.c_str(), O_RDONLY, 0);
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int code = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (code != 0) return Error{"run", words[0], code, "install it"};
  int status = 0;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return error_from_errno("wait for", words[0]);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return Error{"run", words[0], 0, "it failed with status " + std::to_string(status)};
  return success();
}

std::vector<SetEntry> make_entries(std::size_t count) {
  std::vector<SetEntry> out;
  out.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    // Clients of 10.0.0.0/8, a few services each; every entry differs.
    const auto number = static_cast<std::uint32_t>(i);
    out.push_back({Address::v4(htonl(0xc6120000U + number % 1000)),
                   Address::v4(htonl(0x0a000000U + number / 10)),
                   static_cast<std::uint16_t>(443 + number % 10), IPPROTO_TCP, 600});
  }
  return out;
}

double seconds_of(const std::function<Status()>& work, Status& status) {
  const auto begin = std::chrono::steady_clock::now();
  status = work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Status status_of(const WriteOutcome& outcome) {
  if (outcome.error) return *outcome.error;
  return success();
}

struct Bench {
  PublishBenchOptions options;
  std::vector<SetEntry> entries;
  std::vector<double> ipset, ipset_tool, nft, nft_refresh, nft_tool, conntrack;

  // Adds to an empty set, timed, and takes the set away.
  Status ipset_round(const std::string& restore) {
    auto client = Ipset::open();
    if (!client.ok()) return client.error();
    IpsetSpec spec;
    spec.name = "L7MARK_BENCH";
    spec.timeout = 600;
    spec.maxelem = static_cast<std::uint32_t>(entries.size() * 2);
    for (const bool ours : {true, false}) {
      const auto made = client->ensure(spec);
      if (!made.ok()) return made.error();
      Status status = success();
      const double seconds = seconds_of(
          [&] {
            return ours ? status_of(client->add(spec, entries))
                        : run({"ipset", "restore"}, restore);
          },
          status);
      if (!status.ok()) return status;
      const auto header = client->header(spec.name);
      if (!header.ok()) return header.error();
      if (!header->has_value() || (*header)->elements != entries.size())
        return Error{"fill", "ipset " + spec.name, 0, "not all entries are in it"};
      (ours ? ipset : ipset_tool).push_back(static_cast<double>(entries.size()) / seconds);
      L7MARK_TRY(client->destroy(spec.name));
    }
    return success();
  }

  Status nft_round(const std::string& script) {
    auto client = Nft::open();
    if (!client.ok()) return client.error();
    NftSpec spec;
    spec.table = "l7mark_bench";
    spec.set = "s";
    spec.timeout = 600;
    spec.create_table = true;
    for (const bool ours : {true, false}) {
      const auto made = client->ensure(spec);
      if (!made.ok()) return made.error();
      Status status = success();
      const double seconds = seconds_of(
          [&] {
            return ours ? status_of(client->add(spec, entries)) : run({"nft", "-f", script});
          },
          status);
      if (!status.ok()) return status;
      for (const std::size_t at : {std::size_t{0}, entries.size() - 1}) {
        const auto found = client->contains(spec, entries[at]);
        if (!found.ok()) return found.error();
        if (!*found) return Error{"fill", "nft set", 0, "not all entries are in it"};
      }
      (ours ? nft : nft_tool).push_back(static_cast<double>(entries.size()) / seconds);
      if (ours) {
        // The way in which running flows are kept in: three steps an entry.
        const double again =
            seconds_of([&] { return status_of(client->refresh(spec, entries)); }, status);
        if (!status.ok()) return status;
        nft_refresh.push_back(static_cast<double>(entries.size()) / again);
      }
      L7MARK_TRY(client->destroy(spec));
    }
    return success();
  }

  Status conntrack_round(std::vector<ConntrackRequest>& requests, std::uint32_t mark) {
    auto client = Conntrack::open();
    if (!client.ok()) return client.error();
    for (ConntrackRequest& request : requests) request.change.mark = mark;
    Status status = success();
    std::size_t written = 0;
    const double seconds = seconds_of(
        [&]() -> Status {
          const ConntrackOutcome outcome = client->write(requests);
          written = outcome.written;
          if (outcome.error) return *outcome.error;
          return success();
        },
        status);
    if (!status.ok()) return status;
    if (written != requests.size())
      return Error{"mark", "conntrack entries", 0, "not all were found"};
    conntrack.push_back(static_cast<double>(written) / seconds);
    return success();
  }

  Status prepare_tracking() const {
    L7MARK_TRY(run({"ip", "link", "set", "lo", "up"}));
    L7MARK_TRY(run({"ip", "addr", "add", "192.0.2.10/32", "dev", "lo"}));
    L7MARK_TRY(run({"ip", "route", "add", "local", "198.18.0.0/15", "dev", "lo"}));
    // Packets are tracked only where a rule looks at their connection.
    for (const char* rule :
         {"add table inet l7mark_track",
          "add chain inet l7mark_track out { type filter hook output priority 0; }",
          "add rule inet l7mark_track out ct state established counter"})
      L7MARK_TRY(run({"nft", rule}));
    return success();
  }

  // One datagram each makes the entries that are to be marked, for 30 seconds.
  Result<std::vector<ConntrackRequest>> make_connections() const {
    const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_port = htons(40000);
    from.sin_addr.s_addr = htonl(0xc000020aU);
    if (!fd || bind(fd.get(), reinterpret_cast<const sockaddr*>(&from), sizeof(from)) < 0)
      return error_from_errno("bind", "192.0.2.10");
    std::vector<ConntrackRequest> out;
    for (std::size_t i = 0; i < options.connections; ++i) {
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_port = htons(9);
      to.sin_addr.s_addr = htonl(static_cast<std::uint32_t>(0xc6120000U + i));
      // An error here is the refusal of an earlier datagram (ICMP): that one was tracked.
      for (int tries = 0; tries < 3; ++tries)
        if (sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 1)
          break;
      ConntrackRequest request;
      request.tuple = {Address::v4(from.sin_addr.s_addr),
                       Address::v4(to.sin_addr.s_addr),
                       40000,
                       9,
                       IPPROTO_UDP,
                       std::nullopt};
      request.change.mark_mask = 0xff;
      out.push_back(request);
    }
    return out;
  }

  Result<PublishResult> work() {
    if (unshare(CLONE_NEWNET) != 0)
      return error_from_errno("make", "a network namespace", "needs root");
    entries = make_entries(options.entries);
    auto restore = ScratchFile::create();
    if (!restore.ok()) return restore.error();
    auto script = ScratchFile::create();
    if (!script.ok()) return script.error();
    {
      std::ofstream ipset_file(restore->path());
      std::ofstream nft_file(script->path());
      nft_file << "add element inet l7mark_bench s {\n";
      for (const SetEntry& entry : entries) {
        const std::string server = entry.server.to_string();
        const std::string client = entry.client.to_string();
        ipset_file << "add L7MARK_BENCH " << server << ",tcp:" << entry.port << ',' << client
                   << " timeout 600\n";
        nft_file << server << " . tcp . " << entry.port << " . " << client << " timeout 600s,\n";
      }
      nft_file << "}\n";
    }
    L7MARK_TRY(prepare_tracking());
    for (unsigned round = 0; round < options.rounds; ++round) {
      L7MARK_TRY(ipset_round(restore->path()));
      L7MARK_TRY(nft_round(script->path()));
      auto connections = make_connections();
      if (!connections.ok()) return connections.error();
      L7MARK_TRY(conntrack_round(*connections, round + 1));
    }

    PublishResult out;
    const auto ratio = [](const std::vector<double>& a, const std::vector<double>& b) {
      std::vector<double> ratios;
      for (std::size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
      return median(ratios);
    };
    out.ipset_ratio = ratio(ipset, ipset_tool);
    out.nft_ratio = ratio(nft, nft_tool);
    for (const auto& [name, rates] :
         {std::pair{"ipset: l7mark", &ipset}, std::pair{"ipset: ipset restore", &ipset_tool},
          std::pair{"nft: l7mark", &nft}, std::pair{"nft: l7mark, refresh", &nft_refresh},
          std::pair{"nft: nft -f", &nft_tool}, std::pair{"conntrack marks: l7mark", &conntrack}}) {
      const auto [low, high] = std::minmax_element(rates->begin(), rates->end());
      out.contenders.push_back({name, median(*rates), *low, *high});
    }
    return out;
  }
};

}  // namespace

Result<PublishResult> run_publish_bench(const PublishBenchOptions& options) {
  if (options.rounds == 0 || options.entries == 0)
    return Error{"run", "bench publish", 0, "rounds and entries must be at least 1"};
  std::optional<Result<PublishResult>> result;
  // The namespace goes with the thread; the caller stays where it is.
  std::thread worker([&] {
    Bench bench;
    bench.options = options;
    result = bench.work();
  });
  worker.join();
  return std::move(*result);
}

}  // namespace l7mark

// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <l7mark/parse.h>

#include "dataplane/dataplane.hpp"
#include "flows_bench.hpp"
#include "lab.hpp"
#include "latency_bench.hpp"
#include "measure.hpp"
#include "memory_bench.hpp"
#include "packet_bench.hpp"
#include "path_bench.hpp"
#include "publish_bench.hpp"
#include "scale_bench.hpp"
#include "util/log.hpp"

namespace l7mark::bench {
namespace {

// Verdicts a second into the kernel's table, by batches of `batch`.
Result<Table> run_verdict_bench(unsigned rounds) {
  constexpr std::size_t kFlows = 200'000;
  const auto features = probe_features();
  if (!features) return features.error();
  DataplaneOptions options;
  options.flows = kFlows * 2;
  auto dataplane = Dataplane::open_private(options, *features);
  if (!dataplane) return dataplane.error();
  std::vector<VerdictEntry> entries(kFlows);
  for (std::size_t i = 0; i < kFlows; ++i) {
    l7m_key4 key{};
    key.addr[0] = L7M_BE32(0x0a000000U + static_cast<std::uint32_t>(i));
    key.addr[1] = L7M_BE32(0xc6336414U);
    key.protocol = 6;
    l7m_key_from_v4(&key, &entries[i].key.raw);
  }
  std::vector<Contender> contenders;
  for (const std::size_t batch : {1U, 16U, 64U, 256U}) {
    contenders.push_back(
        {fmt::format("verdicts, batches of {}", batch), [&, batch] {
           for (const VerdictEntry& entry : entries) dataplane->remove_verdict(entry.key);
           const auto begin = std::chrono::steady_clock::now();
           const std::span<const VerdictEntry> all(entries);
           for (std::size_t at = 0; at < kFlows; at += batch)
             if (!dataplane->put_verdicts(all.subspan(at, std::min(batch, kFlows - at))))
               return -1.0;
           const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
           return static_cast<double>(kFlows) / spent.count();
         }});
  }
  if (!run_rounds(contenders, rounds)) return Error{"run", "the verdict bench", 0, {}};
  Table table;
  table.columns = {"contender", "entries a second", "lowest", "highest"};
  for (const Contender& c : contenders) {
    const auto [low, high] = std::minmax_element(c.values.begin(), c.values.end());
    table.rows.push_back({c.name, number(median(c.values), 0), number(*low, 0), number(*high, 0)});
  }
  return table;
}

int show(const Result<Table>& table, bool json) {
  if (!table) {
    log_error("{}", table.error().message());
    return 1;
  }
  print(*table, json);
  return 0;
}

int publish(unsigned rounds, std::size_t entries, bool json) {
  auto table = run_verdict_bench(rounds);
  if (!table) return show(table, json);
  PublishBenchOptions options;
  options.rounds = rounds;
  options.entries = entries;
  const auto published = run_publish_bench(options);
  if (!published) {
    log_error("{}", published.error().message());
    return 1;
  }
  for (const PublishContender& c : published->contenders)
    table->rows.push_back({c.name, number(c.median, 0), number(c.lowest, 0), number(c.highest, 0)});
  table->rows.push_back(
      {"ipset: ours by `ipset restore`", number(published->ipset_ratio, 1), "", ""});
  table->rows.push_back({"nft: ours by `nft -f`", number(published->nft_ratio, 1), "", ""});
  return show(table, json);
}

// What every subcommand shares. A subcommand's options live in a shared pointer that its callback
// holds.
struct Shared {
  bool json = false;
  unsigned rounds = 11;
  std::function<int()> chosen;
};

void add_packet(CLI::App& app, Shared& shared) {
  auto options = std::make_shared<PacketBenchOptions>();
  CLI::App* command = app.add_subcommand("packet", "Nanoseconds a packet, by BPF_PROG_TEST_RUN");
  command->add_option("--repeat", options->repeat, "Runs of a program a round")
      ->capture_default_str();
  command->add_option("--flows", options->flows, "Sizes of the table")
      ->delimiter(',')
      ->capture_default_str();
  command->callback([options, &shared] {
    shared.chosen = [options, &shared] {
      options->rounds = shared.rounds;
      return show(run_packet_bench(*options), shared.json);
    };
  });
}

void add_publish(CLI::App& app, Shared& shared) {
  auto entries = std::make_shared<std::size_t>(100'000);
  CLI::App* command =
      app.add_subcommand("publish", "Entries a second into maps, ipsets, nft sets, conntrack");
  command->add_option("--entries", *entries, "Entries a round")->capture_default_str();
  command->callback([entries, &shared] {
    shared.chosen = [entries, &shared] { return publish(shared.rounds, *entries, shared.json); };
  });
}

void add_flows(CLI::App& app, Shared& shared) {
  auto options = std::make_shared<FlowsBenchOptions>();
  CLI::App* command =
      app.add_subcommand("flows", "New flows a second that workers classify, against ndpiReader");
  command->add_option("--flows", options->flows, "At least so many")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--capture", options->captures,
                      "Files whose flows are copied, instead of flows that are made up");
  command->footer(
      "\"flows a CPU second\" is of user and system time together, less what the program takes\n"
      "to start. \"flows a second\" is by the clock: what workers take flat out without loss.\n"
      "\"evicted\" are flows given up early because there were too many at a time.\n\n"
      "Examples:\n"
      "  sudo l7mark-bench flows\n"
      "  sudo l7mark-bench flows --flows 50000 --capture morning.pcap evening.pcapng --json");
  command->callback([options, &shared] {
    shared.chosen = [options, &shared] {
      options->rounds = shared.rounds;
      return show(run_flows_bench(*options), shared.json);
    };
  });
}

void add_memory(CLI::App& app, Shared& shared) {
  auto options = std::make_shared<MemoryBenchOptions>();
  CLI::App* command =
      app.add_subcommand("memory", "Bytes a flow in the kernel and in processes; start-up time");
  command
      ->add_option("--flows", options->flows,
                   "Tracked at a time, at least; the policy's limits.flows")
      ->delimiter(',')
      ->check(CLI::Range(1024, 1 << 22))
      ->capture_default_str();
  command->add_flag("--ipv6", options->ipv6, "Flows of IPv6");
  command->footer(
      "A daemon as in production, for each size anew. \"kernel\" is what the kernel says that the\n"
      "pinned maps take (memlock), \"daemon\" and \"workers\" are proportional set sizes (Pss), "
      "in\n"
      "megabytes of 1,000,000 bytes. \"start-up\" is from before it is started until it is ready.\n"
      "--rounds does not count here.\n\n"
      "Examples:\n"
      "  sudo l7mark-bench memory\n"
      "  sudo l7mark-bench memory --flows 262144 --json");
  command->callback([options, &shared] {
    shared.chosen = [options, &shared] {
      set_log_level(LogLevel::warning);
      return in_lab(
          [&](const Lab& lab) { return show(run_memory_bench(lab, *options), shared.json); });
    };
  });
}

void add_scale(CLI::App& app, Shared& shared) {
  auto options = std::make_shared<ScaleBenchOptions>();
  CLI::App* command =
      app.add_subcommand("scale", "Cost as flows, classes, host names and workers grow");
  command->add_option("--repeat", options->repeat, "Runs of a program a round")
      ->capture_default_str();
  command->add_option("--flows", options->flows, "Established at a time")
      ->delimiter(',')
      ->check(CLI::Range(2, 1 << 22))
      ->capture_default_str();
  command->add_option("--classes", options->classes, "Classes of a policy")
      ->delimiter(',')
      ->check(CLI::Range(1, 2000))
      ->capture_default_str();
  command->add_option("--hosts", options->hosts, "Host names in all its classes together")
      ->delimiter(',')
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--workers", options->workers, "Workers")
      ->delimiter(',')
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--worker-flows", options->worker_flows, "Flows for them, at least so many")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->footer(
      "\"packet\" is of an established flow with a mark, in TC by BPF_PROG_TEST_RUN, less the\n"
      "empty program; \"floor\" parses, looks up once and counts. Policies are read and compiled\n"
      "by l7mark's own code, each class with its share of the host names; policies with fewer\n"
      "names than classes are left out. \"by smallest\" is the median ratio to the first row of\n"
      "the kind.\n\n"
      "Examples:\n"
      "  sudo l7mark-bench scale\n"
      "  sudo l7mark-bench scale --classes 1,1000 --hosts 1000 --workers 2 --json");
  command->callback([options, &shared] {
    shared.chosen = [options, &shared] {
      options->rounds = shared.rounds;
      return show(run_scale_bench(*options), shared.json);
    };
  });
}

void add_path(CLI::App& app, Shared& shared) {
  auto options = std::make_shared<PathBenchOptions>();
  CLI::App* command =
      app.add_subcommand("path", "What a gateway forwards with one tool or another on it");
  command->add_option("--seconds", options->seconds, "Of each load, each round")
      ->check(CLI::Range(0.05, 60.0))
      ->capture_default_str();
  command->add_option("--load", options->loads, "Only these")
      ->delimiter(',')
      ->check(CLI::IsMember(path_load_names()));
  command->add_option("--on", options->contenders, "Only these on the gateway, and \"none\"")
      ->delimiter(',')
      ->check(CLI::IsMember(path_contender_names()));
  command->footer(
      "Makes a client, a gateway and a server of network namespaces, and takes them away again.\n"
      "The rate is what arrives. CPU is of the load's two processes, the tool and the kernel's\n"
      "softirq threads together, for each megabyte, packet or connection; \"tool's\" is the\n"
      "share of the tool's processes in it. \"by none\" and \"by empty\" are medians of the\n"
      "ratios within a round to the path with nothing on it, and to that with an empty program\n"
      "where l7mark has its own; the latter with the middle half of the rounds. \"lost\" are\n"
      "packets that the tool should have seen and did not, all rounds together.\n\n"
      "Examples:\n"
      "  sudo l7mark-bench path\n"
      "  sudo l7mark-bench path --load connections --on l7mark-tc,nfqueue-20 --rounds 21\n"
      "  sudo l7mark-bench path --seconds 3 --json");
  command->callback([options, &shared] {
    shared.chosen = [options, &shared] {
      options->rounds = shared.rounds;
      set_log_level(LogLevel::warning);
      return in_lab(
          [&](const Lab& lab) { return show(run_path_bench(lab, *options), shared.json); });
    };
  });
}

void add_latency(CLI::App& app, Shared& shared) {
  auto options = std::make_shared<LatencyBenchOptions>();
  CLI::App* command = app.add_subcommand(
      "latency", "From the packet that decides to the verdict in the map and in the ipset");
  command->add_option("--seconds", options->seconds, "Of each rate, each round")
      ->check(CLI::Range(0.05, 600.0))
      ->capture_default_str();
  command->add_option("--rate", options->rates, "New flows a second")
      ->delimiter(',')
      ->check(CLI::Range(1.0, 100'000.0))
      ->capture_default_str();
  command->footer(
      "A daemon as in production classifies flows that one packet decides, sent evenly. Times\n"
      "are microseconds, all rounds together, from before the packet is sent to after the system\n"
      "call by which the map or the set first says that it has the flow. \"asked each\" is the\n"
      "time between two such questions about a flow when the second was answered with yes: by so\n"
      "much, at most, the times are too long. \"missing\" are flows without an answer after two\n"
      "seconds. The set is asked for a thousand flows a second at most.\n\n"
      "Examples:\n"
      "  sudo l7mark-bench latency\n"
      "  sudo l7mark-bench latency --rate 1000 --seconds 20 --rounds 3 --json");
  command->callback([options, &shared] {
    shared.chosen = [options, &shared] {
      options->rounds = shared.rounds;
      set_log_level(LogLevel::warning);
      return in_lab(
          [&](const Lab& lab) { return show(run_latency_bench(lab, *options), shared.json); });
    };
  });
}

}  // namespace
}  // namespace l7mark::bench

int main(int argc, char** argv) {
  using namespace l7mark::bench;
  CLI::App app{"Measures what l7mark costs; contenders take turns in one run", "l7mark-bench"};
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", "l7mark-bench " L7MARK_VERSION);
  Shared shared;
  app.add_flag("--json", shared.json, "As JSON");
  app.add_option("--rounds", shared.rounds, "Rounds of all contenders")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.footer(
      "Needs root. Ratios within a run tell something; times of one machine tell little of "
      "another.\n\n"
      "Examples:\n"
      "  sudo l7mark-bench packet\n"
      "  sudo l7mark-bench packet --flows 1024,131072 --json\n"
      "  sudo l7mark-bench publish --entries 100000");
  add_packet(app, shared);
  add_publish(app, shared);
  add_path(app, shared);
  add_latency(app, shared);
  add_flows(app, shared);
  add_memory(app, shared);
  add_scale(app, shared);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (geteuid() != 0) {
    l7mark::log_error("l7mark-bench needs root: run it with sudo");
    return 1;
  }
  return shared.chosen();
}

// SPDX-License-Identifier: GPL-2.0-only
// `l7mark classify`: the flows of capture files, through the same path as live traffic.
#include <l7mark/parse.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "capture/reader.hpp"
#include "capture/record.hpp"
#include "capture/user_path.hpp"
#include "commands.hpp"
#include "common/choice.hpp"
#include "kernel_path.hpp"
#include "policy/matcher.hpp"
#include "policy/policy.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

enum class Format { json, table };
enum class Route { kernel, user };

struct Options {
  Route route = Route::kernel;
  Format format = Format::json;
  std::string policy;
  std::string protocols_file;
  std::optional<std::uint8_t> packets, whole, whole_plain;
  std::optional<std::uint32_t> snaplen;
  std::uint32_t workers = 1;
  std::vector<std::string> inside;
  std::vector<std::string> decapsulate;
  std::string vlan;  // empty: as in the policy, or key
  std::vector<std::string> captures;
};

// What all captures of a run have in common.
struct Setup {
  PathOptions path;
  RecordNames names;
  std::optional<PolicyMatcher> matcher;  // where there is a policy
};

Result<Setup> prepare(const Options& options) {
  Setup setup;
  setup.path.rings = options.workers;
  // ndpiReader opens these two always, and knows ports of TCP and UDP only.
  setup.path.parse = L7M_PARSE_IPIP | L7M_PARSE_TWO_PORTS;
  setup.path.engine.protocols_file = options.protocols_file;
  if (!options.policy.empty() && options.protocols_file.empty()) {
    auto file = load_protocols_file_setting(options.policy);
    if (!file.ok()) return file.error();
    setup.path.engine.protocols_file = std::move(*file);
  }
  const auto engine = Engine::make(setup.path.engine);
  if (!engine.ok()) return engine.error();
  setup.names = RecordNames::of(*engine);

  std::vector<std::string> tunnels = options.decapsulate;
  bool keyed = options.vlan != "ignore";
  if (!options.policy.empty()) {
    auto policy = load_policy(options.policy, setup.names.catalog);
    if (!policy.ok()) return policy.error();
    for (const std::string& warning : policy->warnings) log_warning("{}", warning);
    setup.path.sampling = policy->sampling;
    setup.path.inside = policy->inside;
    if (policy->decapsulate.gre) tunnels.emplace_back("gre");
    if (policy->decapsulate.gtpu) tunnels.emplace_back("gtpu");
    if (policy->decapsulate.vxlan) tunnels.emplace_back("vxlan");
    if (options.vlan.empty() && policy->vlan == VlanUse::ignore) keyed = false;
    setup.matcher.emplace(std::make_shared<const Policy>(std::move(*policy)));
  }
  if (keyed) setup.path.parse |= L7M_PARSE_VLAN_KEY;
  for (const std::string& tunnel : tunnels) {
    if (tunnel == "gre") setup.path.parse |= L7M_PARSE_GRE;
    if (tunnel == "gtpu") setup.path.parse |= L7M_PARSE_GTPU;
    if (tunnel == "vxlan") setup.path.parse |= L7M_PARSE_VXLAN;
  }
  if (!options.inside.empty()) setup.path.inside.clear();
  for (const std::string& text : options.inside) {
    const auto prefix = Prefix::parse(text);
    if (!prefix) return Error{"understand --inside", text, 0, "it is no prefix such as 10.0.0.0/8"};
    setup.path.inside.push_back(*prefix);
  }
  SamplingConfig& sampling = setup.path.sampling;
  if (options.packets) sampling.packets = *options.packets;
  if (options.whole) sampling.whole = *options.whole;
  if (options.whole_plain) sampling.whole_plain = *options.whole_plain;
  if (options.snaplen) sampling.snaplen = *options.snaplen;
  return setup;
}

// The policy's classes of a flow, as of when it was captured, and who decided.
void add_classes(const Setup& setup, const Answer& answer, RecordContext& context) {
  if (!setup.matcher) {
    context.source = answer.facts.answered() ? Source::answer : Source::none;
    return;
  }
  const WallTime when{
      std::chrono::duration_cast<WallTime::duration>(std::chrono::nanoseconds(answer.last_ns))};
  const ClassList classes = setup.matcher->match(answer.facts, answer.state, when);
  for (const std::uint16_t index : classes) {
    if (!context.class_name.empty()) context.class_name += ',';
    context.class_name += setup.matcher->policy().classes[index].name;
  }
  context.source = setup.matcher->source(answer.facts, classes);
}

void print_flows(const CapturePath& path, const std::string& capture, const Setup& setup,
                 Format format) {
  for (const CaptureFlow& flow : path.flows()) {
    RecordContext context;
    context.capture = capture;
    add_classes(setup, flow.answer, context);
    context.count = flow.count;
    context.sampled_packets = flow.sampled_packets;
    context.sampled_bytes = flow.sampled_bytes;
    const std::string line = format == Format::json
                                 ? to_json_line(flow.answer, context, setup.names)
                                 : to_table_row(flow.answer, context, setup.names);
    std::printf("%s\n", line.c_str());
  }
}

// The most flows that one of these files may have.
std::uint32_t expected_flows(const std::vector<std::string>& files) {
  // A flow takes a packet, and a packet in a file no less than this.
  constexpr std::uintmax_t smallest = 60;
  constexpr std::uintmax_t most = 1U << 20;
  std::uintmax_t flows = 0;
  for (const std::string& file : files) {
    std::error_code ignored;
    const std::uintmax_t size = std::filesystem::file_size(file, ignored);
    flows = std::max(flows, ignored ? most : std::min(size / smallest, most));
  }
  return static_cast<std::uint32_t>(flows);
}

Result<std::unique_ptr<CapturePath>> make_path(const Setup& setup, const Options& options) {
  if (options.route == Route::user) {
    auto path = UserPath::make(setup.path);
    if (!path.ok()) return path.error();
    return std::unique_ptr<CapturePath>(std::make_unique<UserPath>(std::move(*path)));
  }
  auto path = KernelPath::make(setup.path, expected_flows(options.captures));
  if (!path.ok()) return path.error();
  return std::unique_ptr<CapturePath>(std::make_unique<KernelPath>(std::move(*path)));
}

// `path` is made for the first capture that can be read, and serves all.
Status classify_one(const std::string& file, const Setup& setup, const Options& options,
                    std::unique_ptr<CapturePath>& path) {
  auto reader = CaptureReader::open(file);
  if (!reader.ok()) return reader.error();
  if (path) {
    L7MARK_TRY(path->restart());
  } else {
    auto made = make_path(setup, options);
    if (!made.ok()) return made.error();
    path = std::move(*made);
  }
  while (const auto packet = reader->next()) L7MARK_TRY(path->packet(*packet));
  L7MARK_TRY(path->finish());
  print_flows(*path, std::filesystem::path(file).filename().string(), setup, options.format);
  if (const auto& problem = reader->problem())
    log_warning("{}; its first {} packets were classified", problem->message(), reader->packets());
  if (reader->shortened() > 0)
    log_warning(
        "{}: {} of {} packets were recorded only in part and are left out; record with tcpdump -s "
        "0",
        file, reader->shortened(), reader->packets());
  return success();
}

int run(const Options& options) {
  const auto setup = prepare(options);
  if (!setup.ok()) {
    log_error("{}", setup.error().message());
    return kExitFailure;
  }
  int status = kExitOk;
  std::size_t skipped = 0;
  std::unique_ptr<CapturePath> path;
  if (options.format == Format::table) std::printf("%s\n", table_header().c_str());
  for (const std::string& file : options.captures) {
    const Status done = classify_one(file, *setup, options, path);
    if (done.ok()) continue;
    if (done.error().code == EPROTONOSUPPORT) {
      log_warning("{}; it is left out", done.error().message());
      ++skipped;
      continue;
    }
    log_error("{}", done.error().message());
    status = kExitFailure;
  }
  if (skipped == options.captures.size()) status = kExitFailure;
  if (std::fflush(stdout) != 0) {
    log_error("{}", error_from_errno("write", "standard output").message());
    status = kExitFailure;
  }
  return status;
}

}  // namespace

void register_classify(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("classify", "Classify the flows of capture files");
  add_choice<Route>(*command, "--path", options->route,
                    {{"kernel", Route::kernel}, {"user", Route::user}},
                    "kernel (default): every packet through the BPF programs, needs root;\n"
                    "user: the same logic without privileges");
  add_choice<Format>(*command, "--format", options->format,
                     {{"json", Format::json}, {"table", Format::table}},
                     "json (default, an object a line) or table");
  command
      ->add_flag_callback(
          "--json", [options] { options->format = Format::json; },
          "As --format json, for a command line like those of the others")
      ->excludes("--format");
  command->add_option("--policy", options->policy,
                      "Show each flow's class; sampling and decapsulation as in this policy");
  command->add_option("--packets", options->packets, "Payload packets copied of a flow (8)")
      ->check(CLI::Range(1, 255));
  command->add_option("--whole", options->whole, "Of them, how many whole (4)")
      ->check(CLI::Range(0, 255));
  command
      ->add_option("--whole-plain", options->whole_plain,
                   "The same of flows that begin with no TLS or QUIC handshake (4)")
      ->check(CLI::Range(0, 255));
  command->add_option("--snaplen", options->snaplen, "Bytes of the others (128)")
      ->check(CLI::Range(64, L7M_MAX_SNAPLEN));
  command
      ->add_option("--workers", options->workers,
                   "Classifiers that share the flows, as workers of the daemon do")
      ->check(CLI::Range(1, L7M_MAX_RINGS))
      ->capture_default_str();
  command
      ->add_option("--inside", options->inside,
                   "Prefixes of the clients: with --workers, a client's flows stay together")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--protocols", options->protocols_file, "Custom protocols, in nDPI's format");
  command
      ->add_option("--decapsulate", options->decapsulate,
                   "Tunnels to open besides IPIP and 6in4: gre, gtpu, vxlan")
      ->check(CLI::IsMember({"gre", "gtpu", "vxlan"}))
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option("--vlan", options->vlan,
                   "key (default): flows of different VLANs are different flows; or ignore")
      ->check(CLI::IsMember({"key", "ignore"}));
  command->add_option("captures", options->captures, "Files: pcap or pcapng")->required();
  command->footer(
      "Prints one JSON object a flow, or a table. A capture of a link type that is not known is\n"
      "left out with a warning. Status 1 if a capture can't be read, or if all are left out.\n\n"
      "Examples:\n"
      "  l7mark classify --format table morning.pcapng\n"
      "  l7mark classify --path user --policy gateway.json *.pcap | jq -r '.ndpi + \" \" + "
      ".class'");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

}  // namespace l7mark

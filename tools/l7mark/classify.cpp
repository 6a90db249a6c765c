// SPDX-License-Identifier: GPL-2.0-only
// `l7mark classify`: the flows of capture files, through the same path as live traffic.
#include <l7mark/parse.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "capture/reader.hpp"
#include "capture/record.hpp"
#include "capture/user_path.hpp"
#include "commands.hpp"
#include "util/log.hpp"

namespace l7mark {
namespace {

enum class Format { json, table };

struct Options {
  Format format = Format::json;
  std::string route = "user";
  UserPathOptions path;
  std::vector<std::string> inside;
  std::vector<std::string> decapsulate;
  std::vector<std::string> captures;
};

void print_flows(const UserPath& path, const std::string& capture, const Options& options) {
  const RecordNames names = RecordNames::of(path.engine());
  for (const CaptureFlow& flow : path.flows()) {
    RecordContext context;
    context.capture = capture;
    context.count = flow.count;
    context.sampled_packets = flow.sampled_packets;
    context.sampled_bytes = flow.sampled_bytes;
    const std::string line = options.format == Format::json
                                 ? to_json_line(flow.answer, context, names)
                                 : to_table_row(flow.answer, context, names);
    std::printf("%s\n", line.c_str());
  }
}

Status classify_one(const std::string& file, const Options& options) {
  auto reader = CaptureReader::open(file);
  if (!reader.ok()) return reader.error();
  auto path = UserPath::make(options.path);
  if (!path.ok()) return path.error();
  while (const auto packet = reader->next()) path->packet(*packet);
  path->finish();
  print_flows(*path, std::filesystem::path(file).filename().string(), options);
  if (const auto& problem = reader->problem())
    log_warning("{}; its first {} packets were classified", problem->message(), reader->packets());
  return success();
}

int run(const Options& options) {
  int status = kExitOk;
  if (options.format == Format::table) std::printf("%s\n", table_header().c_str());
  for (const std::string& file : options.captures) {
    if (const Status done = classify_one(file, options); !done.ok()) {
      log_error("{}", done.error().message());
      status = kExitFailure;
    }
  }
  if (std::fflush(stdout) != 0) {
    log_error("{}", error_from_errno("write", "standard output").message());
    status = kExitFailure;
  }
  return status;
}

}  // namespace

void register_classify(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  options->path.parse = L7M_PARSE_IPIP | L7M_PARSE_TWO_PORTS;
  CLI::App* command = app.add_subcommand("classify", "Classify the flows of capture files");
  command->footer(
      "Prints one JSON object a flow, or a table.\n"
      "Example: l7mark classify --format table morning.pcapng");
  command->add_option("--format", options->format, "json (an object a line) or table")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Format>{{"json", Format::json}, {"table", Format::table}}));
  command->add_option("--path", options->route, "user: without the kernel's programs")
      ->check(CLI::IsMember({"user"}))
      ->capture_default_str();
  command->add_option("--packets", options->path.packets, "Payload packets copied of a flow")
      ->check(CLI::Range(1, 255))
      ->capture_default_str();
  command->add_option("--whole", options->path.whole, "Of them, how many whole")
      ->check(CLI::Range(0, 255))
      ->capture_default_str();
  command->add_option("--snaplen", options->path.snaplen, "Bytes of the others")
      ->check(CLI::Range(64, L7M_MAX_SNAPLEN))
      ->capture_default_str();
  command->add_option("--workers", options->path.rings,
                      "Classifiers that share the flows, as workers of the daemon do")
      ->check(CLI::Range(1, L7M_MAX_RINGS))
      ->capture_default_str();
  command->add_option("--inside", options->inside,
                      "Prefixes of the clients: with --workers, a client's flows stay together")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--protocols", options->path.engine.protocols_file,
                      "Custom protocols, in nDPI's format");
  command->add_option("--decapsulate", options->decapsulate,
                      "Tunnels to open besides IPIP and 6in4: gre, gtpu, vxlan")
      ->check(CLI::IsMember({"gre", "gtpu", "vxlan"}))
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("captures", options->captures, "Files: pcap or pcapng")->required();
  command->callback([options, &chosen] {
    for (const std::string& tunnel : options->decapsulate) {
      if (tunnel == "gre") options->path.parse |= L7M_PARSE_GRE;
      if (tunnel == "gtpu") options->path.parse |= L7M_PARSE_GTPU;
      if (tunnel == "vxlan") options->path.parse |= L7M_PARSE_VXLAN;
    }
    for (const std::string& text : options->inside) {
      const auto prefix = Prefix::parse(text);
      if (!prefix) throw CLI::ValidationError("--inside", text + " is no prefix such as 10.0.0.0/8");
      options->path.inside.push_back(*prefix);
    }
    chosen = [options] { return run(*options); };
  });
}

}  // namespace l7mark

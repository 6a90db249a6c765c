// SPDX-License-Identifier: GPL-2.0-only
// Compares `l7mark classify` with ndpiReader, flow by flow. The oracle is a table of what
// ndpiReader printed for the same captures: columns capture, proto (number), src, sport, dst,
// dport, ndpi, packets, bytes, separated by tabs, under a line of headings. What a table has no
// columns for, ndpiReader itself is asked (--reader).
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "flow_key.hpp"
#include "groups.hpp"
#include "metadata.hpp"
#include "util/address.hpp"

namespace l7mark {
namespace {

struct Options {
  std::string program;
  std::string oracle;
  std::string captures;
  std::string path = "user";
  std::string extra;
  std::string reader;  // ndpiReader's program; empty for no comparison of metadata
  unsigned jobs = 2;
  double minimum = 0;           // of agreement, percent
  double minimum_metadata = 0;  // the same, of each kind of metadata
  double most_bytes = 100;      // copied, of all flows, percent
  bool differences = false;
};

struct Row {
  unsigned proto = 0;
  std::string src, dst;
  unsigned sport = 0, dport = 0;
  std::string ndpi;
  std::uint64_t packets = 0, bytes = 0, sampled_packets = 0, sampled_bytes = 0;
  std::string confidence;
  std::string detector;  // of l7mark's own, which spoke instead of nDPI
  std::string host;      // server's name
  Metadata metadata;
  std::string line;  // as printed

  [[nodiscard]] std::string key() const { return flow_key(proto, src, sport, dst, dport); }
  [[nodiscard]] std::string text() const {
    return std::to_string(proto) + ' ' + src + ':' + std::to_string(sport) + " > " + dst + ':' +
           std::to_string(dport) + ' ' + std::to_string(packets) + " packets " +
           std::to_string(bytes) + " bytes";
  }
};

struct Tally {
  std::uint64_t flows = 0, same_answer = 0, richer = 0, same_counts = 0, missing = 0;
  std::uint64_t packets = 0, bytes = 0, sampled_packets = 0, sampled_bytes = 0;
};

struct Summary {
  std::map<std::string, Tally> groups;
  Tally everything;  // flows that ndpiReader gave no name included
  std::uint64_t extra = 0, extra_named = 0, reversed = 0, failed = 0;
  MetadataSummary metadata;
  std::vector<std::string> richer;
  std::vector<std::string> lines;
};

std::map<std::string, std::vector<Row>> read_oracle(const std::string& file) {
  std::map<std::string, std::vector<Row>> out;
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) {
    std::vector<std::string> cells;
    std::istringstream cut(line);
    for (std::string cell; std::getline(cut, cell, '\t');) cells.push_back(cell);
    if (cells.size() < 9) continue;
    Row row;
    row.proto = static_cast<unsigned>(std::stoul(cells[1]));
    row.src = plain_address(cells[2]);
    row.sport = static_cast<unsigned>(std::stoul(cells[3]));
    row.dst = plain_address(cells[4]);
    row.dport = static_cast<unsigned>(std::stoul(cells[5]));
    row.ndpi = cells[6];
    row.packets = std::stoull(cells[7]);
    row.bytes = std::stoull(cells[8]);
    if (cells.size() > 9) row.host = cells[9];
    out[cells[0]].push_back(std::move(row));
  }
  return out;
}

// Standard output of a command; nothing if it fails.
std::optional<std::string> output_of(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "re");
  if (pipe == nullptr) return std::nullopt;
  std::string text;
  char buffer[65536];
  for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;)
    text.append(buffer, got);
  const int status = pclose(pipe);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return std::nullopt;
  return text;
}

// Captures that one run of the program takes.
constexpr std::size_t kChunk = 16;
using Names = std::span<const std::string>;

// Runs the program under test; its exit status is part of the result. Rows are added by capture.
bool classify(const Options& options, const std::string& path, Names captures,
              std::map<std::string, std::vector<Row>>& rows) {
  // ndpiReader is run with -I, too.
  std::string command =
      options.program + " classify --vlan ignore --path " + path + ' ' + options.extra;
  for (const std::string& capture : captures) {
    command += " '" + options.captures + '/';
    command += capture + "'";
  }
  const auto text = output_of(command);
  if (!text) return false;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    if (object.is_discarded()) return false;
    Row row;
    const auto proto = parse_protocol(object.at("proto").get<std::string>());
    row.proto = proto.value_or(0);
    row.src = plain_address(object.at("src").get<std::string>());
    row.sport = object.at("sport");
    row.dst = plain_address(object.at("dst").get<std::string>());
    row.dport = object.at("dport");
    row.ndpi = object.at("ndpi");
    row.packets = object.at("packets");
    row.bytes = object.at("bytes");
    row.sampled_packets = object.at("sampled_packets");
    row.sampled_bytes = object.at("sampled_bytes");
    const auto& confidence = object.at("confidence");
    row.confidence = confidence.is_null() ? "no answer" : confidence.get<std::string>();
    row.detector = object.value("detector", "");
    row.host = object.value("hostname", "");
    row.metadata = metadata_of(object);
    row.line = line;
    rows[object.at("capture").get<std::string>()].push_back(std::move(row));
  }
  return true;
}

using ReaderFlows = std::map<std::string, Metadata>;

// A name that ndpiReader has not and could not: from a QUIC handshake that was put together, where
// ndpiReader has no server's name and an application by the address at most, or from a detector of
// l7mark's own.
bool is_richer(const Row& want, const Row& got) {
  if (got.ndpi == want.ndpi) return false;
  const bool quic = want.ndpi.rfind("QUIC", 0) == 0 && got.ndpi.rfind("QUIC.", 0) == 0;
  const bool named = want.ndpi != "QUIC" && !want.host.empty();
  return !got.detector.empty() || (quic && !named && !got.host.empty());
}

void compare(const std::string& capture, const std::vector<Row>& wanted, std::vector<Row> got,
             const ReaderFlows& reader, Summary& out) {
  for (const Row& row : got) {
    const auto found = reader.find(row.key());
    if (found != reader.end())
      compare_metadata(capture + ": " + row.text(), found->second, row.metadata, out.metadata,
                       out.lines);
  }
  for (const Row& row : got) {
    ++out.everything.flows;
    out.everything.packets += row.packets;
    out.everything.bytes += row.bytes;
    out.everything.sampled_packets += row.sampled_packets;
    out.everything.sampled_bytes += row.sampled_bytes;
  }
  for (const Row& want : wanted) {
    const auto found = std::find_if(got.begin(), got.end(),
                                    [&](const Row& row) { return row.key() == want.key(); });
    for (const std::string& group : groups_of(want.ndpi)) {
      Tally& tally = out.groups[group];
      ++tally.flows;
      if (found == got.end()) {
        ++tally.missing;
        continue;
      }
      tally.same_answer += found->ndpi == want.ndpi ? 1U : 0U;
      tally.richer += is_richer(want, *found) ? 1U : 0U;
      tally.same_counts += found->packets == want.packets && found->bytes == want.bytes ? 1U : 0U;
      tally.packets += found->packets;
      tally.bytes += found->bytes;
      tally.sampled_packets += found->sampled_packets;
      tally.sampled_bytes += found->sampled_bytes;
    }
    if (found == got.end()) {
      out.lines.push_back(capture + ": missing " + want.text() + ' ' + want.ndpi);
      continue;
    }
    if (is_richer(want, *found))
      out.richer.push_back(capture + ": " + want.text() + ": ndpiReader " + want.ndpi +
                           ", l7mark " + found->ndpi +
                           (found->detector.empty() ? "" : " by " + found->detector));
    else if (found->ndpi != want.ndpi)
      out.lines.push_back(capture + ": " + want.text() + ": ndpiReader " + want.ndpi + ", l7mark " +
                          found->ndpi + " (" + found->confidence + ", " +
                          std::to_string(found->sampled_packets) + " sampled)");
    else if (found->packets != want.packets || found->bytes != want.bytes)
      out.lines.push_back(capture + ": counts: ndpiReader " + want.text() + ", l7mark " +
                          found->text());
    if (found->src != want.src || found->sport != want.sport) {
      ++out.reversed;
      out.lines.push_back(capture + ": reversed " + want.text() + ", l7mark " + found->text());
    }
    got.erase(found);
  }
  out.extra += got.size();
  for (const Row& row : got) {
    if (row.ndpi != "Unknown") ++out.extra_named;
    (row.detector.empty() ? out.lines : out.richer)
        .push_back(capture + ": not in ndpiReader: " + row.text() + ' ' + row.ndpi);
  }
}

// With the options that the tables were made with, and all that it can say of a flow.
ReaderFlows ask_reader(const Options& options, const std::string& capture) {
  if (options.reader.empty()) return {};
  const auto text =
      output_of(options.reader + " -I -v 2 -i '" + options.captures + '/' + capture + "'");
  return text ? read_reader(*text) : ReaderFlows{};
}

double percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 100.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

// Lines that are in one list only; the longer list counts.
std::uint64_t count_unlike(std::vector<std::string> a, std::vector<std::string> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  std::vector<std::string> common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  return std::max(a.size(), b.size()) - common.size();
}

void print(const Summary& summary, const std::string& path) {
  std::printf("path %s\n%-12s %8s %9s %8s %9s %8s %10s %10s\n", path.c_str(), "group", "flows",
              "agree %", "richer", "counts %", "missing", "packets %", "bytes %");
  for (const char* group : {"all", "known", "unknown", "TLS", "QUIC", "HTTP", "DNS", "BitTorrent",
                            "VPN", "voice/video"}) {
    const auto found = summary.groups.find(group);
    if (found == summary.groups.end()) continue;
    const Tally& tally = found->second;
    std::printf("%-12s %8lu %9.2f %8lu %9.2f %8lu %10.2f %10.2f\n", group, tally.flows,
                percent(tally.same_answer, tally.flows - tally.richer), tally.richer,
                percent(tally.same_counts, tally.flows), tally.missing,
                percent(tally.sampled_packets, tally.packets),
                percent(tally.sampled_bytes, tally.bytes));
  }
  std::printf("all %lu flows of the captures: %.2f %% of packets and %.2f %% of bytes copied\n",
              summary.everything.flows,
              percent(summary.everything.sampled_packets, summary.everything.packets),
              percent(summary.everything.sampled_bytes, summary.everything.bytes));
  std::printf(
      "flows that ndpiReader has no name of: %lu, of which l7mark names %lu; shown the other way "
      "round: %lu; runs that failed: %lu\n",
      summary.extra, summary.extra_named, summary.reversed, summary.failed);
}

int run(const Options& options) {
  const auto oracle = read_oracle(options.oracle);
  if (oracle.empty()) {
    std::fprintf(stderr, "cannot read %s: no rows\n", options.oracle.c_str());
    return 1;
  }
  std::vector<std::string> captures;
  captures.reserve(oracle.size());
  for (const auto& [capture, rows] : oracle) captures.push_back(capture);
  std::vector<std::string> paths{options.path};
  if (options.path == "both") paths = {"kernel", "user"};
  std::map<std::string, Summary> summaries;
  std::uint64_t compared = 0;
  std::uint64_t unlike = 0;
  std::mutex mutex;
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t at = kChunk * next++; at < captures.size(); at = kChunk * next++) {
      const Names chunk = Names(captures).subspan(at, std::min(kChunk, captures.size() - at));
      std::map<std::string, ReaderFlows> reader;
      for (const std::string& capture : chunk) reader[capture] = ask_reader(options, capture);
      std::vector<std::vector<std::string>> printed;
      for (const std::string& path : paths) {
        std::map<std::string, std::vector<Row>> rows;
        const bool ok = classify(options, path, chunk, rows);
        const std::scoped_lock lock(mutex);
        Summary& summary = summaries[path];
        if (!ok) {
          ++summary.failed;
          summary.lines.push_back(chunk.front() + " and those after it: l7mark failed");
        }
        printed.emplace_back();
        for (const auto& [capture, flows] : rows)
          for (const Row& row : flows) printed.back().push_back(row.line);
        for (const std::string& capture : chunk)
          compare(capture, oracle.at(capture), std::move(rows[capture]), reader[capture], summary);
      }
      if (printed.size() == 2) {
        const std::scoped_lock lock(mutex);
        compared += std::max(printed[0].size(), printed[1].size());
        unlike += count_unlike(printed[0], printed[1]);
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options.jobs; ++i) threads.emplace_back(work);
  for (auto& thread : threads) thread.join();

  bool good = unlike == 0;
  for (const std::string& path : paths) {
    Summary& summary = summaries[path];
    std::sort(summary.lines.begin(), summary.lines.end());
    if (options.differences)
      for (const std::string& line : summary.lines) std::printf("%s\n", line.c_str());
    std::sort(summary.richer.begin(), summary.richer.end());
    for (const std::string& line : summary.richer) std::printf("richer: %s\n", line.c_str());
    print(summary, path);
    if (!options.reader.empty())
      good = print_metadata(summary.metadata, options.minimum_metadata) && good;
    const Tally& all = summary.groups["all"];
    const Tally& every = summary.everything;
    good = good && summary.failed == 0 &&
           percent(all.same_answer, all.flows - all.richer) >= options.minimum &&
           percent(every.sampled_bytes, every.bytes) <= options.most_bytes;
  }
  if (paths.size() == 2)
    std::printf("the paths agree on %.2f %% of %lu flows, every key of the record compared\n",
                percent(compared - unlike, compared), compared);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace l7mark

int main(int argc, char** argv) {
  l7mark::Options options;
  options.jobs = std::max(1U, std::thread::hardware_concurrency());
  CLI::App app{"Compares `l7mark classify` with ndpiReader, flow by flow"};
  app.add_option("--l7mark", options.program, "Program under test")->required();
  app.add_option("--oracle", options.oracle, "Table of ndpiReader's answers")->required();
  app.add_option("--captures", options.captures, "Directory of the captures")->required();
  app.add_option("--path", options.path,
                 "kernel, user, or both: then they must agree on every flow")
      ->check(CLI::IsMember({"kernel", "user", "both"}))
      ->capture_default_str();
  app.add_option("--options", options.extra, "More options for `classify`");
  app.add_option("--jobs", options.jobs, "Processes at once")->check(CLI::Range(1, 64));
  app.add_option("--reader", options.reader,
                 "ndpiReader's program: compare host names, JA3, ALPN, ciphers and risks as well");
  app.add_option("--minimum", options.minimum, "Fail below this agreement, percent");
  app.add_option("--minimum-metadata", options.minimum_metadata,
                 "Fail below this agreement of a kind of metadata, percent");
  app.add_option("--most-bytes", options.most_bytes,
                 "Fail if more bytes of all flows are copied, percent");
  app.add_flag("--differences", options.differences, "Print every flow that differs");
  CLI11_PARSE(app, argc, argv);
  return l7mark::run(options);
}

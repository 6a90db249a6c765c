// SPDX-License-Identifier: GPL-2.0-only
#include "publish/ipset.hpp"

#include <libmnl/libmnl.h>
#include <linux/netfilter/ipset/ip_set_hash.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <numeric>
#include <utility>
#include <vector>

#include "publish/ipset_message.hpp"

namespace l7mark {

namespace {

namespace message = ipset_message;

// From the kernel's hash types: the first revision that has skbinfo, and with it all options that
// are used here. A newer one than needed would be unreadable for an older ipset(8).
std::uint8_t wanted_revision(IpsetType type) {
  switch (type) {
    case IpsetType::ip_port_ip:
    case IpsetType::ip_port:
      return 5;
    case IpsetType::ip:
      return 4;
    case IpsetType::net:
      return 6;
  }
  return 0;
}

constexpr std::uint32_t kMaxelem = 65536;       // the kernel's default
constexpr std::uint32_t kMostBuckets = 16384;   // 128 KiB
constexpr std::uint32_t kTimeoutMax = 2147483;  // IPSET_MAX_TIMEOUT, seconds
// Messages in one datagram; the kernel's echo of each must fit the receive buffer.
constexpr std::size_t kWindow = 8;
constexpr unsigned kRepeats = 3;
// In a full set every element costs a message of its own. After so many refusals in one call the
// rest is not tried.
constexpr unsigned kFullRefusals = 16;

WriteTrouble trouble_of(int code) {
  switch (code) {
    case ENOENT:
      return WriteTrouble::gone;
    case EPERM:
    case EACCES:
      return WriteTrouble::denied;
    case IPSET_ERR_HASH_FULL:
      return WriteTrouble::full;
    case IPSET_ERR_PROTOCOL:
    case IPSET_ERR_TIMEOUT:
    case IPSET_ERR_COMMENT:
    case IPSET_ERR_SKBINFO:
    case IPSET_ERR_IPADDR_IPV4:
    case IPSET_ERR_IPADDR_IPV6:
      return WriteTrouble::wrong_type;
    default:
      return WriteTrouble::other;
  }
}

std::span<const std::byte> bytes_of(const nlmsghdr* request) {
  return {reinterpret_cast<const std::byte*>(request), request->nlmsg_len};
}

Error lost_error(const std::string& name) {
  return Error{"write to", "ipset " + name, ENOBUFS, "the kernel dropped acknowledgements"};
}

}  // namespace

std::string_view to_string(IpsetType type) {
  switch (type) {
    case IpsetType::ip_port_ip:
      return "hash:ip,port,ip";
    case IpsetType::ip_port:
      return "hash:ip,port";
    case IpsetType::ip:
      return "hash:ip";
    case IpsetType::net:
      return "hash:net";
  }
  return "hash:ip,port,ip";
}

std::optional<IpsetType> parse_ipset_type(std::string_view text) {
  for (const auto type : {IpsetType::ip_port_ip, IpsetType::ip_port, IpsetType::ip, IpsetType::net})
    if (text == to_string(type)) return type;
  return std::nullopt;
}

std::uint32_t ipset_hashsize(const IpsetSpec& spec) {
  if (spec.hashsize != 0) return spec.hashsize;
  return std::min(spec.maxelem != 0 ? spec.maxelem : kMaxelem, kMostBuckets);
}

Result<std::pair<IpsetSpec, IpsetSpec>> ipset_pair(const IpsetSpec& spec) {
  const std::string object = "ipset " + spec.name;
  if (spec.name.empty()) return Error{"name", "ipset", 0, "the name is empty"};
  if (spec.name.size() + 1 > kIpsetNameMax)
    return Error{"name", object, 0,
                 "with the IPv6 set's suffix 6 it is longer than 31 characters: shorten it to 30"};
  if (spec.timeout > kTimeoutMax)
    return Error{"create", object, 0, "the timeout is over 2147483 seconds"};
  IpsetSpec ipv4 = spec;
  IpsetSpec ipv6 = spec;
  ipv4.ipv6 = false;
  ipv6.ipv6 = true;
  ipv6.name += "6";
  return std::pair{std::move(ipv4), std::move(ipv6)};
}

std::string ipset_difference(const IpsetSpec& spec, const IpsetHeader& found) {
  std::string out;
  const auto add = [&](const std::string& text) { out += (out.empty() ? "" : ", ") + text; };
  if (found.type != to_string(spec.type))
    add("its type is " + found.type + ", not " + std::string(to_string(spec.type)));
  if (found.ipv6 != spec.ipv6)
    add(std::string("its family is ") + (found.ipv6 ? "inet6" : "inet") + ", not " +
        (spec.ipv6 ? "inet6" : "inet"));
  if (spec.timeout != 0 && !found.with_timeout) add("it was created without timeout");
  // Without a timeout of their own, our elements would expire by the set's default unnoticed.
  if (spec.timeout == 0 && found.timeout != 0)
    add("its elements expire after " + std::to_string(found.timeout) + " seconds by default");
  if (spec.comment && !found.comment) add("it was created without comment");
  if (spec.skbinfo && !found.skbinfo) add("it was created without skbinfo");
  if (spec.counters && !found.counters) add("it was created without counters");
  return out;
}

bool ipset_holds(IpsetType type, std::uint8_t protocol) {
  if (type == IpsetType::ip || type == IpsetType::net) return true;
  return protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6 && protocol != 0;
}

Result<Ipset> Ipset::open() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket.ok()) return socket.error();
  Ipset out(std::move(*socket));
  NetlinkBatch batch(1024);
  const nlmsghdr* request = message::put_protocol(batch.tail(), out.socket_.reserve_sequence());
  std::optional<message::Versions> versions;
  auto reply = out.socket_.request(bytes_of(request), [&](const NetlinkReply& answer) {
    versions = message::parse_versions(answer.message, false);
  });
  if (!reply.ok()) return reply.error();
  if (reply->error != 0) {
    if (reply->error == EINVAL)
      return Error{"use", "ipset", EINVAL, "the kernel lacks it: load module ip_set"};
    return message::error("ask the protocol version of", "in the kernel", reply->error);
  }
  if (!versions) return Error{"use", "ipset", EPROTO, "the kernel named no protocol version"};
  if (versions->oldest > IPSET_PROTOCOL || versions->newest < IPSET_PROTOCOL_MIN)
    return Error{
        "use", "ipset", EPROTO,
        "the kernel speaks protocol " + std::to_string(versions->newest) + ", l7mark 6 and 7"};
  out.protocol_ = std::min<std::uint8_t>(versions->newest, IPSET_PROTOCOL);
  return out;
}

Result<std::uint8_t> Ipset::revision(const IpsetSpec& spec) {
  NetlinkBatch batch(1024);
  const nlmsghdr* request = message::put_type(batch.tail(), {protocol_, socket_.reserve_sequence()},
                                              spec.type, spec.ipv6);
  std::optional<message::Versions> versions;
  auto reply = socket_.request(bytes_of(request), [&](const NetlinkReply& answer) {
    versions = message::parse_versions(answer.message, true);
  });
  if (!reply.ok()) return reply.error();
  if (reply->error != 0) return message::error("create", spec.name, reply->error);
  if (!versions) return Error{"create", "ipset " + spec.name, EPROTO, "no revision of its type"};
  return std::clamp(wanted_revision(spec.type), versions->oldest, versions->newest);
}

Status Ipset::create(const IpsetSpec& spec) {
  const auto chosen = revision(spec);
  if (!chosen.ok()) return chosen.error();
  NetlinkBatch batch(1024);
  const nlmsghdr* request =
      message::put_create(batch.tail(), {protocol_, socket_.reserve_sequence()}, spec, *chosen);
  auto reply = socket_.request(bytes_of(request), {});
  if (!reply.ok()) return reply.error();
  if (reply->error != 0) return message::error("create", spec.name, reply->error);
  created_.insert(spec.name);
  return success();
}

Result<Ensured> Ipset::ensure(const IpsetSpec& spec) {
  if (spec.name.empty() || spec.name.size() > kIpsetNameMax)
    return Error{"create", "ipset " + spec.name, 0, "a set's name has 1 to 31 characters"};
  const auto found = header(spec.name);
  if (!found.ok()) return found.error();
  if (!found->has_value()) {
    created_.erase(spec.name);
    L7MARK_TRY(create(spec));
    return Ensured::created;
  }
  const std::string difference = ipset_difference(spec, **found);
  if (!difference.empty())
    return Error{"use", "ipset " + spec.name, EEXIST,
                 "it exists, but " + difference + ": rename or recreate it"};
  if (spec.ours) created_.insert(spec.name);
  return created_.contains(spec.name) ? Ensured::created : Ensured::adopted;
}

Result<std::optional<IpsetHeader>> Ipset::header(const std::string& name) {
  NetlinkBatch batch(1024);
  const nlmsghdr* request =
      message::put_list(batch.tail(), {protocol_, socket_.reserve_sequence()}, name);
  std::optional<IpsetHeader> out;
  auto reply = socket_.request(bytes_of(request), [&](const NetlinkReply& answer) {
    if (auto parsed = message::parse_header(answer.message)) out = std::move(parsed);
  });
  if (!reply.ok()) return reply.error();
  if (reply->error == ENOENT) return std::optional<IpsetHeader>{};
  if (reply->error != 0) return message::error("look at", name, reply->error);
  return out;
}

WriteOutcome Ipset::add(const IpsetSpec& spec, std::span<const SetEntry> entries,
                        const IpsetExtras& extras) {
  return write(IPSET_CMD_ADD, spec, entries, extras);
}

WriteOutcome Ipset::remove(const IpsetSpec& spec, std::span<const SetEntry> entries) {
  return write(IPSET_CMD_DEL, spec, entries, {});
}

namespace {

// Elements chosen[begin, end) that are still to be sent.
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  unsigned repeats = 0;
};

struct Sent {
  Range range;
  int error = -1;  // -1: no acknowledgement
  std::uint32_t line = 0;
};

}  // namespace

WriteOutcome Ipset::write(std::uint8_t command, const IpsetSpec& spec,
                          std::span<const SetEntry> entries, const IpsetExtras& extras) {
  WriteOutcome out;
  std::vector<std::size_t> chosen;
  chosen.reserve(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].server.is_v4() == spec.ipv6 || !ipset_holds(spec.type, entries[i].protocol))
      ++out.skipped;
    else
      chosen.push_back(i);
  }
  const char* operation = command == IPSET_CMD_ADD ? "add to" : "delete from";
  unsigned refusals = 0;
  const auto give_up = [&](const Range& range, WriteTrouble trouble, const Error& cause) {
    for (std::size_t i = range.begin; i < range.end; ++i) out.fail(chosen[i], trouble, cause);
  };

  std::deque<Range> pending;
  if (!chosen.empty()) pending.push_back({0, chosen.size(), 0});
  std::size_t width = kWindow;
  NetlinkBatch batch(kWindow * (message::kMessageBytes + message::kElementBytes));
  while (!pending.empty()) {
    batch.clear();
    std::vector<Sent> window;
    const std::uint32_t sequence = socket_.reserve_sequence(kWindow);
    while (!pending.empty() && window.size() < width) {
      Range& next = pending.front();
      const auto number = static_cast<std::uint32_t>(window.size());
      std::size_t count = 0;
      batch.commit(message::put_elements(batch.tail(), {protocol_, sequence + number}, command,
                                         spec, entries, std::span(chosen).first(next.end),
                                         next.begin, extras, count));
      window.push_back({{next.begin, next.begin + count, next.repeats}, -1, 0});
      next.begin += count;
      if (next.begin == next.end) pending.pop_front();
    }

    bool lost = false;
    const Status status = socket_.exchange(
        batch.bytes(),
        [&](const NetlinkReply& reply) {
          const std::uint32_t number = reply.message->nlmsg_seq - sequence;
          if (!reply.ack || number >= window.size()) return;
          window[number].error = reply.error;
          if (reply.error != 0) window[number].line = message::error_line(reply.message);
        },
        lost);
    if (lost) {
      // Fewer at a time fit a small receive buffer; one always does.
      ++out.resyncs;
      width = std::max<std::size_t>(1, window.size() / 2);
    }

    for (const Sent& sent : window) {
      const Range& range = sent.range;
      if (sent.error == 0) {
        out.written += range.end - range.begin;
      } else if (sent.error < 0) {
        // Adding and deleting may be repeated without harm.
        if (!status.ok())
          give_up(range, WriteTrouble::lost, status.error());
        else if (range.repeats >= kRepeats && width == 1)
          give_up(range, WriteTrouble::lost, lost_error(spec.name));
        else
          pending.push_back({range.begin, range.end, range.repeats + 1});
      } else {
        Error cause = message::error(operation, spec.name, sent.error);
        WriteTrouble trouble = trouble_of(sent.error);
        // Whatever bears the name next may be someone else's.
        if (trouble == WriteTrouble::gone) created_.erase(spec.name);
        const bool located = sent.line > range.begin && sent.line <= range.end;
        if (!located) {
          give_up(range, trouble, cause);
          continue;
        }
        // The kernel stops at the first element that it refuses: those before are in.
        const std::size_t refused = sent.line - 1;
        out.written += refused - range.begin;
        if (trouble == WriteTrouble::other) trouble = WriteTrouble::element;
        out.fail(chosen[refused], trouble, cause);
        const Range rest{refused + 1, range.end, 0};
        const bool worth_trying = trouble == WriteTrouble::element ||
                                  (trouble == WriteTrouble::full && ++refusals < kFullRefusals);
        if (!worth_trying)
          give_up(rest, trouble, cause);
        else if (rest.begin < rest.end)
          pending.push_back(rest);
      }
    }
    // Nothing that is left can fare better.
    const WriteTrouble trouble = out.trouble();
    const bool hopeless = trouble == WriteTrouble::gone || trouble == WriteTrouble::denied ||
                          trouble == WriteTrouble::wrong_type || !status.ok() ||
                          refusals >= kFullRefusals;
    if (hopeless && !pending.empty()) {
      const Error cause = *out.error;
      for (const Range& range : pending) give_up(range, trouble, cause);
      pending.clear();
    }
  }
  return out;
}

Result<bool> Ipset::contains(const IpsetSpec& spec, const SetEntry& entry) {
  NetlinkBatch batch(1024);
  const nlmsghdr* request = message::put_element(
      batch.tail(), {protocol_, socket_.reserve_sequence()}, IPSET_CMD_TEST, spec, entry);
  auto reply = socket_.request(bytes_of(request), {});
  if (!reply.ok()) return reply.error();
  if (reply->error == IPSET_ERR_EXIST) return false;
  if (reply->error != 0) return message::error("look into", spec.name, reply->error);
  return true;
}

Status Ipset::command(std::uint8_t command, const std::string& name, const char* operation) {
  if (!created_.contains(name))
    return Error{operation, "ipset " + name, EPERM, "l7mark did not create it"};
  NetlinkBatch batch(1024);
  const nlmsghdr* request =
      message::put_header(batch.tail(), {protocol_, socket_.reserve_sequence()}, command, 0, name);
  auto reply = socket_.request(bytes_of(request), {});
  if (!reply.ok()) return reply.error();
  if (reply->error == ENOENT) return success();
  if (reply->error != 0) {
    Error out = message::error(operation, name, reply->error);
    // So that callers can tell it from other failures.
    if (reply->error == IPSET_ERR_BUSY || reply->error == IPSET_ERR_REFERENCED) out.code = EBUSY;
    return out;
  }
  return success();
}

Status Ipset::flush(const std::string& name) {
  return command(IPSET_CMD_FLUSH, name, "empty");
}

Status Ipset::destroy(const std::string& name) {
  L7MARK_TRY(command(IPSET_CMD_DESTROY, name, "destroy"));
  created_.erase(name);
  return success();
}

}  // namespace l7mark

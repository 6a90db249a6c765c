// SPDX-License-Identifier: GPL-2.0-only
#include "publish/conntrack.hpp"

#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <utility>

#include "publish/conntrack_message.hpp"

namespace l7mark {

namespace {

namespace message = conntrack_message;

// Messages in one datagram.
constexpr std::size_t kWindow = 256;
// Events that are read at once: some milliseconds' work.
constexpr std::size_t kEventsAtOnce = 4096;
constexpr unsigned kRepeats = 3;

Error error_of(int code, const ConntrackRequest& request, const std::string& text) {
  std::string detail = text;
  if (code == ENOSPC)
    detail =
        "the entry has no room for labels: it was made while no rule used any; add a rule with "
        "`-m connlabel` or `ct label` before traffic starts";
  else if (code == EPERM)
    detail = "needs CAP_NET_ADMIN";
  else if (code == EINVAL && text.empty())
    detail = "the kernel lacks conntrack: load module nf_conntrack_netlink";
  return Error{"mark",
               "conntrack entry of " + request.tuple.source.to_string() + " and " +
                   request.tuple.destination.to_string(),
               code, std::move(detail)};
}

WriteTrouble trouble_of(int code) {
  switch (code) {
    case EPERM:
    case EACCES:
      return WriteTrouble::denied;
    case ENOSPC:
      return WriteTrouble::element;
    default:
      return WriteTrouble::other;
  }
}

}  // namespace

Result<Conntrack> Conntrack::open() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket.ok()) return socket.error();
  return Conntrack(std::move(*socket));
}

void Conntrack::write_pass(std::span<const ConntrackRequest> requests,
                           std::vector<std::size_t> pending, bool reversed,
                           ConntrackOutcome& outcome, std::vector<std::size_t>& absent) {
  const auto fail = [&](std::size_t index, WriteTrouble trouble, Error cause) {
    if (!outcome.error) outcome.error = std::move(cause);
    outcome.failures.push_back({index, trouble});
  };
  NetlinkBatch batch(kWindow * message::kChangeBytes);
  unsigned repeats = 0;
  std::size_t width = kWindow;
  std::vector<std::size_t> window;
  std::vector<int> results;
  std::vector<std::size_t> again;
  std::string text;
  for (std::size_t at = 0; at < pending.size();) {
    const std::size_t count = std::min(width, pending.size() - at);
    window.assign(pending.begin() + static_cast<std::ptrdiff_t>(at),
                  pending.begin() + static_cast<std::ptrdiff_t>(at + count));
    at += count;
    results.assign(count, -1);
    batch.clear();
    const std::uint32_t sequence = socket_.reserve_sequence(kWindow);
    for (std::size_t i = 0; i < count; ++i) {
      const ConntrackRequest& request = requests[window[i]];
      batch.commit(message::put_change(batch.tail(), sequence + static_cast<std::uint32_t>(i),
                                       reversed ? message::reversed(request.tuple) : request.tuple,
                                       request.change));
    }
    bool lost = false;
    const Status status = socket_.exchange(
        batch.bytes(),
        [&](const NetlinkReply& reply) {
          const std::uint32_t place = reply.message->nlmsg_seq - sequence;
          if (!reply.ack || place >= count) return;
          results[place] = reply.error;
          if (!reply.text.empty()) text = reply.text;
        },
        lost);
    if (lost) {
      // Fewer at a time fit a small receive buffer; one always does.
      ++outcome.resyncs;
      width = std::max<std::size_t>(1, count / 2);
    }
    again.clear();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t index = window[i];
      if (results[i] == 0)
        ++outcome.written;
      else if (results[i] == ENOENT)
        absent.push_back(index);
      else if (results[i] > 0)
        fail(index, trouble_of(results[i]), error_of(results[i], requests[index], text));
      else if (!status.ok())
        fail(index, WriteTrouble::lost, status.error());
      else
        again.push_back(index);
    }
    if (again.empty()) {
      repeats = 0;
    } else if (outcome.error || (++repeats > kRepeats && width == 1)) {
      // Without the right to do it, the kernel answers the first message of a datagram only.
      for (const std::size_t index : again)
        fail(index, WriteTrouble::lost,
             error_of(ENOBUFS, requests[index], "the kernel dropped acknowledgements"));
      repeats = 0;
    } else {
      pending.insert(pending.end(), again.begin(), again.end());
    }
  }
}

Result<std::vector<ConntrackTuple>> Conntrack::find_icmp(const ConntrackTuple& tuple) {
  NetlinkBatch batch(message::kChangeBytes);
  batch.commit(message::put_dump(batch.tail(), socket_.reserve_sequence(), tuple));
  std::vector<ConntrackTuple> out;
  auto reply = socket_.request(batch.bytes(), [&](const NetlinkReply& answer) {
    const auto found = message::parse_entry(answer.message);
    if (!found) return;
    const ConntrackTuple& original = found->original;
    if (original.protocol == tuple.protocol && original.source == tuple.source &&
        original.destination == tuple.destination && original.zone == tuple.zone && original.icmp)
      out.push_back(original);
  });
  if (!reply.ok()) return reply.error();
  if (reply->error != 0) return error_of(reply->error, {tuple, {}}, reply->text);
  return out;
}

ConntrackOutcome Conntrack::write(std::span<const ConntrackRequest> requests) {
  ConntrackOutcome outcome;
  std::vector<std::size_t> pending;
  std::vector<ConntrackRequest> icmp;
  std::vector<std::size_t> icmp_index;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const ConntrackTuple& tuple = requests[i].tuple;
    if (!message::is_icmp(tuple.protocol) || tuple.icmp) {
      pending.push_back(i);
      continue;
    }
    bool any = false;
    for (const auto& direction : {tuple, message::reversed(tuple)}) {
      auto found = find_icmp(direction);
      if (!found.ok()) {
        if (!outcome.error) outcome.error = found.error();
        outcome.failures.push_back({i, WriteTrouble::other});
        any = true;
        break;
      }
      for (const ConntrackTuple& one : *found) {
        icmp.push_back({one, requests[i].change});
        icmp_index.push_back(i);
        any = true;
      }
    }
    if (!any) outcome.missing.push_back(i);
  }
  std::vector<std::size_t> absent;
  write_pass(requests, std::move(pending), false, outcome, absent);
  if (!absent.empty()) write_pass(requests, std::move(absent), true, outcome, outcome.missing);

  if (!icmp.empty()) {
    ConntrackOutcome found;
    std::vector<std::size_t> all(icmp.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    write_pass(icmp, std::move(all), false, found, found.missing);
    std::vector<char> bad(requests.size(), 0);
    for (const WriteFailure& failure : found.failures) {
      const std::size_t index = icmp_index[failure.index];
      if (std::exchange(bad[index], char{1}) == 0)
        outcome.failures.push_back({index, failure.trouble});
    }
    if (found.error && !outcome.error) outcome.error = found.error;
    outcome.written += found.written;
    outcome.resyncs += found.resyncs;
  }
  return outcome;
}

Result<ConntrackEvents> ConntrackEvents::open() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket.ok()) return socket.error();
  L7MARK_TRY(socket->join(NFNLGRP_CONNTRACK_DESTROY));
  return ConntrackEvents(std::move(*socket));
}

Status ConntrackEvents::read(const std::function<void(const ConntrackEntry&)>& destroyed,
                             bool& lost) {
  return socket_.receive(
      [&](const NetlinkReply& event) {
        if (event.ack || !message::is_destroyed(event.message)) return;
        if (const auto entry = message::parse_entry(event.message)) destroyed(*entry);
      },
      lost, kEventsAtOnce);
}

}  // namespace l7mark

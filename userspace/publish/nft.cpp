// SPDX-License-Identifier: GPL-2.0-only
#include "publish/nft.hpp"

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "publish/nft_message.hpp"

namespace l7mark {

namespace {

namespace message = nft_message;

// Elements of one transaction: enough to spread the cost of a commit, few enough that three lists
// of them fit a datagram.
constexpr std::size_t kTransaction = 4096;
constexpr unsigned kRepeats = 3;
constexpr std::size_t kSmall = 4096;   // bytes of a batch without elements
constexpr std::size_t kNameMax = 255;  // NFT_NAME_MAXLEN without the NUL

WriteTrouble trouble_of(int code) {
  switch (code) {
    case ENOENT:
      return WriteTrouble::gone;
    case EPERM:
    case EACCES:
      return WriteTrouble::denied;
    case ENFILE:
      return WriteTrouble::full;
    case ENOBUFS:
    case ENOMEM:
      return WriteTrouble::lost;
    default:
      return WriteTrouble::other;
  }
}

std::string table_name(const NftSpec& spec) {
  return std::string(to_string(spec.family)) + " " + spec.table;
}

Result<std::optional<message::Table>> ask_table(NetlinkSocket& socket, const NftSpec& spec) {
  NetlinkBatch batch(kSmall);
  message::get_table(batch, socket.reserve_sequence(), spec);
  std::optional<message::Table> out;
  auto reply = socket.request(batch.bytes(), [&](const NetlinkReply& answer) {
    out = message::parse_table(answer.message);
  });
  if (!reply.ok()) return reply.error();
  if (reply->error == ENOENT) return std::optional<message::Table>{};
  if (reply->error != 0)
    return Error{"look at", "nft table " + table_name(spec), reply->error, reply->text};
  return out;
}

}  // namespace

std::string_view to_string(NftFamily family) {
  switch (family) {
    case NftFamily::inet:
      return "inet";
    case NftFamily::ip:
      return "ip";
    case NftFamily::ip6:
      return "ip6";
  }
  return "inet";
}

std::optional<NftFamily> parse_nft_family(std::string_view text) {
  for (const auto family : {NftFamily::inet, NftFamily::ip, NftFamily::ip6})
    if (text == to_string(family)) return family;
  return std::nullopt;
}

std::string NftSpec::full_name() const {
  return table_name(*this) + " " + set;
}

Result<std::vector<NftSpec>> nft_pair(const NftSpec& spec) {
  if (spec.table.empty() || spec.set.empty())
    return Error{"name", "nft set", 0, "table and set need a name each"};
  if (spec.table.size() > kNameMax || spec.set.size() + 1 > kNameMax)
    return Error{"name", "nft set " + spec.full_name(), 0, "a name is over 254 characters"};
  std::vector<NftSpec> out;
  for (const bool ipv6 : {false, true}) {
    if (spec.family == (ipv6 ? NftFamily::ip : NftFamily::ip6)) continue;
    out.push_back(spec);
    out.back().ipv6 = ipv6;
    if (ipv6) out.back().set += "6";
  }
  return out;
}

std::string nft_difference(const NftSpec& spec, const NftHeader& found) {
  std::string out;
  const auto add = [&](const std::string& text) { out += (out.empty() ? "" : ", ") + text; };
  if (found.key_type != message::key_type(spec.ipv6) ||
      found.key_length != message::key_of({}, spec.ipv6).length) {
    const std::string address = spec.ipv6 ? "ipv6_addr" : "ipv4_addr";
    add("its type is not " + address + " . inet_proto . inet_service . " + address);
  }
  if (spec.timeout != 0 && (found.flags & NFT_SET_TIMEOUT) == 0)
    add("it was created without flag timeout");
  if (spec.timeout == 0 && found.timeout_ms != 0) add("its elements expire by default");
  if ((found.flags & NFT_SET_INTERVAL) != 0) add("it has flag interval");
  if ((found.flags & NFT_SET_CONSTANT) != 0) add("it has flag constant");
  if ((found.flags & NFT_SET_MAP) != 0) add("it is a map");
  return out;
}

bool nft_holds(std::uint8_t protocol) {
  switch (protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
    case IPPROTO_SCTP:
    case IPPROTO_DCCP:
      return true;
    default:
      return false;
  }
}

Result<Nft> Nft::open() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket.ok()) return socket.error();
  Nft out(std::move(*socket));
  const auto generation = out.generation();
  if (!generation.ok()) return generation.error();
  return out;
}

Result<std::uint32_t> Nft::generation() {
  NetlinkBatch batch(kSmall);
  message::get_generation(batch, socket_.reserve_sequence());
  std::optional<std::uint32_t> out;
  auto reply = socket_.request(batch.bytes(), [&](const NetlinkReply& answer) {
    out = message::parse_generation(answer.message);
  });
  if (!reply.ok()) return reply.error();
  if (reply->error == EINVAL || (reply->error == 0 && !out))
    return Error{"use", "nftables", EOPNOTSUPP, "the kernel lacks it: load module nf_tables"};
  if (reply->error == EPERM) return Error{"use", "nftables", EPERM, "needs CAP_NET_ADMIN"};
  if (reply->error != 0) return Error{"use", "nftables", reply->error, reply->text};
  return *out;
}

Result<std::optional<NftHeader>> Nft::header(const NftSpec& spec) {
  NetlinkBatch batch(kSmall);
  message::get_set(batch, socket_.reserve_sequence(), spec);
  std::optional<NftHeader> out;
  auto reply = socket_.request(
      batch.bytes(), [&](const NetlinkReply& answer) { out = message::parse_set(answer.message); });
  if (!reply.ok()) return reply.error();
  if (reply->error == ENOENT) return std::optional<NftHeader>{};
  if (reply->error != 0)
    return message::error("look at", spec.full_name(), reply->error, reply->text);
  return out;
}

Status Nft::transact_one(NetlinkBatch& batch, const char* operation, const std::string& object) {
  int code = 0;
  std::string text;
  bool answered = false;
  bool lost = false;
  L7MARK_TRY(socket_.exchange(
      batch.bytes(),
      [&](const NetlinkReply& reply) {
        if (!reply.ack) return;
        answered = true;
        if (reply.error != 0 && code == 0) {
          code = reply.error;
          text = reply.text;
        }
      },
      lost));
  if (code != 0) return message::error(operation, object, code, text);
  if (!answered || lost) return message::error(operation, object, ENOBUFS, "reply lost");
  return success();
}

Result<Ensured> Nft::ensure(const NftSpec& spec) {
  const std::string name = spec.full_name();
  const auto found = header(spec);
  if (!found.ok()) return found.error();
  if (found->has_value()) {
    const std::string difference = nft_difference(spec, **found);
    if (!difference.empty())
      return Error{"use", "nft set " + name, EEXIST,
                   "it exists, but " + difference + ": rename or recreate it"};
    const auto table = ask_table(socket_, spec);
    if (!table.ok()) return table.error();
    const Made here{table->has_value() ? (*table)->handle : 0, (*found)->handle};
    if (spec.ours) created_[name] = here;
    const auto mine = created_.find(name);
    if (mine != created_.end() && mine->second == here) return Ensured::created;
    created_.erase(name);
    return Ensured::adopted;
  }

  const auto before = ask_table(socket_, spec);
  if (!before.ok()) return before.error();
  const bool with_table = !before->has_value();
  if (with_table && !spec.create_table)
    return Error{"create", "nft set " + name, ENOENT,
                 "there is no table " + table_name(spec) + ": make it, or let l7mark do so"};
  NetlinkBatch batch(kSmall);
  std::uint32_t sequence = socket_.reserve_sequence(4);
  message::begin(batch, sequence++, std::nullopt);
  if (with_table) message::new_table(batch, sequence++, spec);
  message::new_set(batch, sequence++, spec);
  message::end(batch, sequence);
  L7MARK_TRY(transact_one(batch, "create", name));
  const auto made = header(spec);
  if (!made.ok()) return made.error();
  const auto table = ask_table(socket_, spec);
  if (!table.ok()) return table.error();
  if (!made->has_value() || !table->has_value())
    return message::error("create", name, ENOENT, "it was deleted at once");
  if (with_table) created_tables_[table_name(spec)] = (*table)->handle;
  created_[name] = {(*table)->handle, (*made)->handle};
  return Ensured::created;
}

int Nft::transact(Change change, const NftSpec& spec, std::span<const SetEntry> entries,
                  std::span<const std::size_t> chosen, std::string& text, bool& lost) {
  // Lists in the order that the transaction runs them: see refresh().
  const std::vector<bool> deletions = change == Change::add ? std::vector{false}
                                      : change == Change::refresh
                                          ? std::vector{false, true, false}
                                          // A missing element would fail the transaction.
                                          : std::vector{false, true};
  const std::size_t pieces =
      (chosen.size() + message::kElementsPerMessage - 1) / message::kElementsPerMessage;
  const std::size_t messages = pieces * deletions.size();
  NetlinkBatch batch(kSmall + messages * 1024 +
                     chosen.size() * deletions.size() * message::kElementBytes);
  const std::uint32_t first = socket_.reserve_sequence(static_cast<std::uint32_t>(messages) + 2);
  std::uint32_t sequence = first;
  message::begin(batch, sequence++, std::nullopt);
  for (const bool deletion : deletions)
    for (std::size_t at = 0; at < chosen.size(); at += message::kElementsPerMessage)
      message::elements(
          batch, sequence++, deletion, spec, entries,
          chosen.subspan(at, std::min(message::kElementsPerMessage, chosen.size() - at)));
  message::end(batch, sequence);

  std::size_t acknowledged = 0;
  int code = 0;
  const Status status = socket_.exchange(
      batch.bytes(),
      [&](const NetlinkReply& reply) {
        if (!reply.ack || reply.message->nlmsg_seq - first > messages + 1) return;
        if (reply.error == 0) {
          ++acknowledged;
        } else if (code == 0) {
          code = reply.error;
          text = reply.text;
        }
      },
      lost);
  if (!status.ok()) return status.error().code != 0 ? status.error().code : EIO;
  if (code == 0 && acknowledged < messages) lost = true;
  return code;
}

WriteOutcome Nft::write(Change change, const NftSpec& spec, std::span<const SetEntry> entries) {
  WriteOutcome out;
  std::vector<std::size_t> chosen;
  chosen.reserve(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].server.is_v4() == spec.ipv6 || !nft_holds(entries[i].protocol))
      ++out.skipped;
    else
      chosen.push_back(i);
  }
  const char* operation = change == Change::remove ? "delete from" : "add to";
  const auto give_up = [&](std::span<const std::size_t> which, int code, const std::string& text) {
    const Error cause = message::error(operation, spec.full_name(), code, text);
    WriteTrouble trouble = trouble_of(code);
    if (trouble == WriteTrouble::other) trouble = WriteTrouble::element;
    for (const std::size_t index : which) out.fail(index, trouble, cause);
  };

  struct Piece {
    std::size_t begin;
    std::size_t end;
    unsigned repeats;
  };
  std::vector<Piece> pending;
  for (std::size_t at = 0; at < chosen.size(); at += kTransaction)
    pending.push_back({at, std::min(at + kTransaction, chosen.size()), 0});
  std::reverse(pending.begin(), pending.end());
  while (!pending.empty()) {
    const Piece piece = pending.back();
    pending.pop_back();
    const auto which =
        std::span<const std::size_t>(chosen).subspan(piece.begin, piece.end - piece.begin);
    std::string text;
    bool lost = false;
    const int code = transact(change, spec, entries, which, text, lost);
    if (lost) ++out.resyncs;
    if (code == 0 && !lost) {
      out.written += which.size();
    } else if (code == 0 || code == ERESTART || code == EAGAIN) {
      // Repeating does no harm, whether it was committed or not.
      if (piece.repeats < kRepeats)
        pending.push_back({piece.begin, piece.end, piece.repeats + 1});
      else
        give_up(which, ENOBUFS, "the kernel dropped acknowledgements");
    } else if (trouble_of(code) == WriteTrouble::denied) {
      give_up(which, code, text);
      for (const Piece& rest : pending)
        give_up(std::span<const std::size_t>(chosen).subspan(rest.begin, rest.end - rest.begin),
                code, text);
      pending.clear();
    } else if (code == ENOENT) {
      // The set is gone, or an element expired between the steps of a refresh.
      const auto found = header(spec);
      if (found.ok() && found->has_value() && piece.repeats < kRepeats) {
        pending.push_back({piece.begin, piece.end, piece.repeats + 1});
      } else {
        give_up(which, code, text);
        for (const Piece& rest : pending)
          give_up(std::span<const std::size_t>(chosen).subspan(rest.begin, rest.end - rest.begin),
                  code, text);
        pending.clear();
      }
    } else if (which.size() > 1) {
      const std::size_t middle = piece.begin + which.size() / 2;
      pending.push_back({middle, piece.end, 0});
      pending.push_back({piece.begin, middle, 0});
    } else if (change == Change::remove && trouble_of(code) == WriteTrouble::full) {
      // No room to add it first: so it is not there.
      ++out.written;
    } else {
      give_up(which, code, text);
      if (trouble_of(code) == WriteTrouble::full) {
        // What is left would fail one by one.
        for (const Piece& rest : pending)
          give_up(std::span<const std::size_t>(chosen).subspan(rest.begin, rest.end - rest.begin),
                  code, text);
        pending.clear();
      }
    }
  }
  return out;
}

WriteOutcome Nft::add(const NftSpec& spec, std::span<const SetEntry> entries) {
  return write(Change::add, spec, entries);
}

WriteOutcome Nft::refresh(const NftSpec& spec, std::span<const SetEntry> entries) {
  return write(Change::refresh, spec, entries);
}

WriteOutcome Nft::remove(const NftSpec& spec, std::span<const SetEntry> entries) {
  return write(Change::remove, spec, entries);
}

Result<bool> Nft::contains(const NftSpec& spec, const SetEntry& entry) {
  NetlinkBatch batch(kSmall);
  message::get_element(batch, socket_.reserve_sequence(), spec, entry);
  auto reply = socket_.request(batch.bytes(), {});
  if (!reply.ok()) return reply.error();
  if (reply->error == 0) return true;
  if (reply->error == ENOENT) {
    // The set may be what is missing.
    const auto found = header(spec);
    if (!found.ok()) return found.error();
    if (found->has_value()) return false;
  }
  return message::error("look into", spec.full_name(), reply->error, reply->text);
}

Status Nft::flush(const NftSpec& spec) {
  if (!created(spec))
    return Error{"empty", "nft set " + spec.full_name(), EPERM, "l7mark did not create it"};
  // It goes by name only: so make sure of whose it is.
  const auto found = header(spec);
  if (!found.ok()) return found.error();
  if (!found->has_value()) return success();
  const auto ensured = ensure(spec);
  if (!ensured.ok()) return ensured.error();
  if (*ensured != Ensured::created) return success();
  NetlinkBatch batch(kSmall);
  const std::uint32_t sequence = socket_.reserve_sequence(3);
  message::begin(batch, sequence, std::nullopt);
  message::flush_set(batch, sequence + 1, spec);
  message::end(batch, sequence + 2);
  return transact_one(batch, "empty", spec.full_name());
}

Status Nft::destroy(const NftSpec& spec) {
  if (!created(spec))
    return Error{"destroy", "nft set " + spec.full_name(), EPERM, "l7mark did not create it"};
  // Both steps fail with ERESTART if the ruleset changed after they looked at it.
  Status status = success();
  for (unsigned repeats = 0; repeats < kRepeats; ++repeats) {
    status = destroy_set(spec);
    if (status.ok()) status = destroy_table_if_empty(spec);
    if (status.ok() || status.error().code != ERESTART) break;
  }
  return status;
}

Status Nft::destroy_set(const NftSpec& spec) {
  const auto mine = created_.find(spec.full_name());
  if (mine == created_.end()) return success();
  const auto now = generation();
  if (!now.ok()) return now.error();
  const auto table = ask_table(socket_, spec);
  if (!table.ok()) return table.error();
  if (table->has_value() && (*table)->handle == mine->second.table) {
    NetlinkBatch batch(kSmall);
    const std::uint32_t sequence = socket_.reserve_sequence(3);
    message::begin(batch, sequence, *now);
    message::delete_set(batch, sequence + 1, spec, mine->second.set);
    message::end(batch, sequence + 2);
    Status status = transact_one(batch, "destroy", spec.full_name());
    if (!status.ok() && status.error().code != ENOENT) return status;
  }
  created_.erase(mine);
  return success();
}

Status Nft::destroy_table_if_empty(const NftSpec& spec) {
  const auto mine = created_tables_.find(table_name(spec));
  if (mine == created_tables_.end()) return success();
  // Deleting a table takes everything in it along: the generation makes sure that nobody put
  // something in since it was found empty.
  const auto now = generation();
  if (!now.ok()) return now.error();
  const auto table = ask_table(socket_, spec);
  if (!table.ok()) return table.error();
  if (table->has_value() && (*table)->handle == mine->second) {
    if ((*table)->use != 0) return success();
    NetlinkBatch batch(kSmall);
    const std::uint32_t sequence = socket_.reserve_sequence(3);
    message::begin(batch, sequence, *now);
    message::delete_table(batch, sequence + 1, spec);
    message::end(batch, sequence + 2);
    L7MARK_TRY(transact_one(batch, "destroy the table of", spec.full_name()));
  }
  created_tables_.erase(mine);
  return success();
}

}  // namespace l7mark

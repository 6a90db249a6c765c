// SPDX-License-Identifier: GPL-2.0-only
// One program at TC ingress or egress of one interface: by a TCX link, which is pinned as
// DIRECTION-link, or by a filter of a clsact, whose program is pinned as DIRECTION-program.
// Internal to attach.cpp.
#pragma once

#include <string>
#include <vector>

#include "dataplane/attach.hpp"
#include "dataplane/transaction.hpp"
#include "util/result.hpp"

namespace l7mark {

struct TcPlace {
  std::string name;  // of the interface
  unsigned ifindex = 0;
  TcDirection direction = TcDirection::ingress;
  std::string pins;                 // the interface's directory, which exists
  std::vector<unsigned> ifindexes;  // where an earlier program of ours may hang
};

// Puts the program there, in the place of an earlier one of ours, before those of others: by TCX an
// earlier one with others before it gives way to one that comes first. What hangs there of ours by
// the other way comes off when the transaction succeeds.
Status put_tcx(const TcPlace& place, int program_fd, Transaction& transaction);
// The interface has a clsact.
Status put_clsact(const TcPlace& place, int program_fd, Transaction& transaction);

// True if a clsact was made, false if there was one (or an ingress qdisc).
Result<bool> ensure_clsact(const std::string& name, unsigned ifindex, Transaction& transaction);
void remove_empty_clsact(unsigned ifindex);

// Takes what is pinned in `pins` off both directions; a filter is looked for on `ifindexes`. What
// could not be taken off stays pinned.
Status take_off_tc(const std::string& pins, const std::vector<unsigned>& ifindexes);

// The TCX links pinned in `pins`, in any network namespace.
enum class PinnedLinks {
  none,
  gone,       // with their interfaces, or the interfaces have come to this namespace
  elsewhere,  // one is on an interface of another namespace
};
[[nodiscard]] PinnedLinks look_at_links(const std::string& pins);

struct TcFound {
  std::string way;       // "tcx", "clsact", or empty: nothing pinned
  unsigned ifindex = 0;  // where it hangs; 0: nowhere any more
  std::string program;   // its name, up to 15 characters
  std::vector<ProgramAhead> ahead;
};
[[nodiscard]] TcFound find_tc(const std::string& pins, TcDirection direction,
                              const std::vector<unsigned>& ifindexes);

}  // namespace l7mark

// SPDX-License-Identifier: GPL-2.0-only
// Our program at XDP of one interface: as one of several below libxdp's dispatcher, or alone where
// the kernel can't do that. Pinned as xdp-program. Internal to attach.cpp.
#pragma once

#include <string>
#include <vector>

#include "dataplane/attach.hpp"
#include "dataplane/transaction.hpp"
#include "util/result.hpp"

namespace l7mark {

struct XdpPlace {
  std::string name;  // of the interface
  unsigned ifindex = 0;
  AttachMode mode = AttachMode::native;  // native or generic
  std::string pins;                      // the interface's directory, which exists
  std::vector<unsigned> ifindexes;       // where an earlier program of ours may hang
  unsigned mtu = 0;
};

struct XdpPut {
  std::string way;     // "dispatcher" or "single"
  bool frags = false;  // as in Attachment
};
// Puts the program there, in the place of an earlier one of ours.
Result<XdpPut> put_xdp(const XdpPlace& place, const XdpFactory& make_xdp, const Features& features,
                       Transaction& transaction);

// Takes what is pinned in `pins` off; it is looked for on `ifindexes`. What could not be taken off
// stays pinned.
Status take_off_xdp(const std::string& pins, const std::vector<unsigned>& ifindexes);

struct XdpFound {
  bool pinned = false;
  unsigned ifindex = 0;  // where it hangs; 0: nowhere any more
  AttachMode mode = AttachMode::native;
  std::string way;     // "dispatcher" or "single"
  bool frags = false;  // of a dispatcher: the kernel does not tell it of a single program
};
[[nodiscard]] XdpFound find_xdp(const std::string& pins, const std::vector<unsigned>& ifindexes);

}  // namespace l7mark

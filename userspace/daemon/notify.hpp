// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string_view>

namespace l7mark {

// Tells systemd, if it started us with Type=notify: "READY=1", "RELOADING=1", "STATUS=…". The
// protocol is a datagram to $NOTIFY_SOCKET, see sd_notify(3). Does nothing elsewhere.
void notify_systemd(std::string_view state);

}  // namespace l7mark

// SPDX-License-Identifier: GPL-2.0-only
// JA4, the fingerprint of a TLS client, by FoxIO's specification
// (https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md): which versions, ciphers,
// extensions and protocols it offers. Clients built alike have the same, whomever they talk to.
#pragma once

#include <string>

#include "handshake/client_hello.hpp"

namespace l7mark {

// 36 characters: "t13d1516h2_8daaf6152771_e5627efa2ab1".
[[nodiscard]] std::string ja4_of(const ClientHello& hello, HelloTransport transport);

}  // namespace l7mark

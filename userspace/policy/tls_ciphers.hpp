// SPDX-License-Identifier: GPL-2.0-only
// Cipher suites by the names that IANA's "TLS Cipher Suites" registry gives them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace l7mark {

// Numbers of the suites that a pattern names, ascending: a name, or a name with "*" for any run of
// characters ("TLS_RSA_WITH_*", "*_RC4_*"), or a number ("0xc02f"). Case is ignored. Empty if there
// is no such suite.
[[nodiscard]] std::vector<std::uint16_t> find_tls_ciphers(std::string_view pattern);
[[nodiscard]] std::vector<std::string> tls_cipher_names();

}  // namespace l7mark

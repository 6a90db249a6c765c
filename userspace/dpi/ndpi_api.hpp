// SPDX-License-Identifier: GPL-2.0-only
// The differences between nDPI 4.2 and 5.x, in one place.
//
// Where a function or a field changed, the shape that the headers declare selects the code, not the
// version's number: the odd numbers between the releases are development branches, which changed
// under one number. A number decides only where a name exists in some versions only and can't be
// asked for. Sources: ndpi_api.h and ndpi_typedefs.h of 4.2, ndpi_api.h of 4.12 (4.11 is the
// development that became it) and of 5.x, and nDPI's issue 2862, "Important API changes".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <ndpi_api.h>  // declares itself extern "C"
#pragma GCC diagnostic pop

#include "flow.hpp"

namespace l7mark::ndpi {

using Module = ndpi_detection_module_struct;
using Flow = ndpi_flow_struct;

// Argument: preferences in 4.2, later a global context. None of either is wanted: the caches of one
// module are never shared with another's.
template <class Argument>
Module* init_module(Module* (*init)(Argument)) {
  return init(Argument{});
}

// 4.2 starts with every protocol off, 5.0 with every protocol on.
template <class M>
void enable_all_protocols([[maybe_unused]] M* module) {
#if NDPI_MAJOR < 5 && defined(NDPI_PROTOCOL_BITMASK)
  NDPI_PROTOCOL_BITMASK all;
  NDPI_BITMASK_SET_ALL(all);
  if constexpr (requires { ndpi_set_protocol_detection_bitmask2(module, &all); })
    ndpi_set_protocol_detection_bitmask2(module, &all);
#endif
}

// 4.2 has nothing to report.
template <class M, class Returned>
bool finalize(M* module, Returned (*finish)(M*)) {
  if constexpr (std::is_void_v<Returned>) {
    finish(module);
    return true;
  } else {
    return finish(module) == 0;
  }
}

// Later versions take what the caller knows of the packet's direction; it may be absent.
template <class... Input>
ndpi_protocol process(ndpi_protocol (*call)(Module*, Flow*, const unsigned char*, unsigned short,
                                            u_int64_t, Input...),
                      Module* module, Flow* flow, const unsigned char* packet,
                      unsigned short length, std::uint64_t time_ms) {
  static_assert(sizeof...(Input) <= 1);
  return call(module, flow, packet, length, time_ms, Input{}...);
}

// Guessing was an argument and became a setting that is on by default; whether it was a guess is
// told by the flow's confidence.
inline ndpi_protocol give_up(ndpi_protocol (*call)(Module*, Flow*, u_int8_t, u_int8_t*),
                             Module* module, Flow* flow) {
  u_int8_t guessed = 0;
  return call(module, flow, 1, &guessed);
}
inline ndpi_protocol give_up(ndpi_protocol (*call)(Module*, Flow*, u_int8_t*), Module* module,
                             Flow* flow) {
  u_int8_t guessed = 0;
  return call(module, flow, &guessed);
}
inline ndpi_protocol give_up(ndpi_protocol (*call)(Module*, Flow*), Module* module, Flow* flow) {
  return call(module, flow);
}

// 5.0 returns the state with the answer instead of being asked for it; `last` is the answer's.
enum class Progress : std::uint8_t { unknown, wants_more, done };

template <class Protocol>
Progress progress([[maybe_unused]] const Protocol& protocol) {
  if constexpr (requires { protocol.state; }) {
#if NDPI_MAJOR >= 5
    return protocol.state == NDPI_STATE_INSPECTING || protocol.state == NDPI_STATE_PARTIAL
               ? Progress::wants_more
               : Progress::done;
#endif
  }
  return Progress::unknown;
}

template <class M, class F>
bool extra_dissection_possible([[maybe_unused]] M* module, [[maybe_unused]] F* flow,
                               [[maybe_unused]] Progress last) {
  if constexpr (requires { ndpi_extra_dissection_possible(module, flow); })
    return ndpi_extra_dissection_possible(module, flow) != 0;
  else
    return last == Progress::wants_more;
}

// A pair of protocols: members of ndpi_protocol itself, or later of a member of it.
template <class P>
auto& protocol_pair(P& protocol) {
  if constexpr (requires { protocol.proto.app_protocol; })
    return protocol.proto;
  else
    return protocol;
}

// The application that the server's address belongs to: told apart from the answer by later
// versions, while 4.2 makes it the answer where there is no other.
template <class P>
std::uint16_t protocol_by_address([[maybe_unused]] const P& protocol) {
  if constexpr (requires { protocol.protocol_by_ip; })
    return static_cast<std::uint16_t>(protocol.protocol_by_ip);
  else
    return 0;
}

// The bit of the risk that a URL is, 0 for none. Later versions take the flow as well. The text is
// copied, for it is taken as mutable.
template <class Risk>
std::uint64_t url_risk(Risk (*call)(char*), Module* /*module*/, Flow* /*flow*/, std::string url) {
  const auto risk = static_cast<unsigned>(call(url.data()));
  return risk == 0 || risk >= 64 ? 0 : std::uint64_t{1} << risk;
}
template <class Risk>
std::uint64_t url_risk(Risk (*call)(Module*, Flow*, char*), Module* module, Flow* flow,
                       std::string url) {
  const auto risk = static_cast<unsigned>(call(module, flow, url.data()));
  return risk == 0 || risk >= 64 ? 0 : std::uint64_t{1} << risk;
}

// Takes ndpi_protocol, or later the pair alone.
template <class P>
void protocol_name(char* (*call)(Module*, P, char*, u_int), Module* module, std::uint16_t master,
                   std::uint16_t application, char* out, std::size_t size) {
  P protocol{};
  protocol_pair(protocol).master_protocol = master;
  protocol_pair(protocol).app_protocol = application;
  call(module, protocol, out, static_cast<u_int>(size));
}

template <class M>
unsigned number_of_protocols(M* module) {
  if constexpr (requires { ndpi_get_num_protocols(module); })
    return ndpi_get_num_protocols(module);
  else
    return ndpi_get_num_supported_protocols(module);
}

template <class Breed, class Text>
const char* breed_name(Text* (*call)(Module*, Breed), Module* module, Breed breed) {
  return call(module, breed);
}
template <class Breed, class Text>
const char* breed_name(Text* (*call)(Breed), Module* /*module*/, Breed breed) {
  return call(breed);
}

// Later versions write an unknown number into a buffer of the caller.
template <class Text, class Number>
std::string cipher_name(Text* (*call)(Number), std::uint16_t cipher) {
  return call(cipher);
}
template <class Text, class Number>
std::string cipher_name(Text* (*call)(Number, char*), std::uint16_t cipher) {
  char unknown[16] = {};
  return call(cipher, unknown);
}

// Later versions split DPI and its caches, and added custom rules. All that rests on neither port
// nor address nor a cache is what the packets say. MATCH_BY_IP is not in every version.
template <class C>
Confidence confidence(C value) {
  switch (value) {
    case C::NDPI_CONFIDENCE_UNKNOWN:
      return Confidence::none;
    case C::NDPI_CONFIDENCE_MATCH_BY_PORT:
      return Confidence::port;
    case C::NDPI_CONFIDENCE_DPI_CACHE:
      return Confidence::cache;
    default:
      break;
  }
  if constexpr (requires { C::NDPI_CONFIDENCE_MATCH_BY_IP; })
    if (value == C::NDPI_CONFIDENCE_MATCH_BY_IP) return Confidence::address;
  if constexpr (requires { C::NDPI_CONFIDENCE_DPI_PARTIAL_CACHE; })
    if (value == C::NDPI_CONFIDENCE_DPI_PARTIAL_CACHE) return Confidence::cache;
  return Confidence::dpi;
}

// Releases from 4.8 to 4.14 have the risk themselves; `none` is for the others.
template <class Risk>
constexpr unsigned fully_encrypted_risk(unsigned none) {
  if constexpr (requires { Risk::NDPI_FULLY_ENCRYPTED; })
    return Risk::NDPI_FULLY_ENCRYPTED;
  else
    return none;
}

// 4.2 keeps what TLS and QUIC tell in the union `protos`; development versions moved it out.
template <class F>
const auto& tls_of(const F& flow) {
  if constexpr (requires { flow.protos.tls_quic; })
    return flow.protos.tls_quic;
  else
    return flow.tls_quic;
}

}  // namespace l7mark::ndpi

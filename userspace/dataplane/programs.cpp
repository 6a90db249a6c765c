// SPDX-License-Identifier: GPL-2.0-only
#include "dataplane/programs.hpp"

#include <l7mark/parse.h>

namespace l7mark {

DataplaneOptions dataplane_options(const Policy& policy) {
  DataplaneOptions out;
  out.flows = policy.limits.flows;
  out.candidates = policy.limits.candidates;
  out.services = policy.limits.services;
  out.hints = policy.limits.hints;
  out.ring_bytes = policy.limits.ring_bytes;
  out.rings = policy.workers;
  if (policy.decapsulate.gre) out.parse |= L7M_PARSE_GRE;
  if (policy.decapsulate.ipip) out.parse |= L7M_PARSE_IPIP;
  if (policy.decapsulate.gtpu) out.parse |= L7M_PARSE_GTPU;
  if (policy.decapsulate.vxlan) out.parse |= L7M_PARSE_VXLAN;
  if (policy.vlan == VlanUse::key) out.parse |= L7M_PARSE_VLAN_KEY;
  return out;
}

ProgramSet program_set(const Dataplane& dataplane) {
  ProgramSet out;
  out.ingress = dataplane.program_fd("l7mark_ingress");
  out.egress = dataplane.program_fd("l7mark_egress");
  out.ingress_l3 = dataplane.program_fd("l7mark_ingress_l3");
  out.egress_l3 = dataplane.program_fd("l7mark_egress_l3");
  out.after_xdp = dataplane.program_fd("l7mark_after_xdp");
  out.vlan_key = (dataplane.parse() & L7M_PARSE_VLAN_KEY) != 0;
  return out;
}

}  // namespace l7mark

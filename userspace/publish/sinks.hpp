// SPDX-License-Identifier: GPL-2.0-only
// The kernel sets that Publisher writes to.
#pragma once

#include <memory>

#include "publish/ipset.hpp"
#include "publish/nft.hpp"
#include "publish/publisher.hpp"

namespace l7mark {

// `ipset` and `nft` must outlive the sink.
[[nodiscard]] std::unique_ptr<EntrySink> make_ipset_sink(Ipset& ipset, const IpsetSpec& spec,
                                                         const IpsetExtras& extras);
[[nodiscard]] std::unique_ptr<EntrySink> make_nft_sink(Nft& nft, const NftSpec& spec);

}  // namespace l7mark

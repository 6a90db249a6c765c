// SPDX-License-Identifier: GPL-2.0-only
#define L7M_XDP 1
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "keys.bpf.h"

SEC("xdp")
int keys_of(struct xdp_md *ctx)
{
	return keys_run(ctx, ctx->data_end - ctx->data);
}

char keys_license[] SEC("license") = "GPL";

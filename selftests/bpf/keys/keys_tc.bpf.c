// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "keys.bpf.h"

SEC("tc")
int keys_of(struct __sk_buff *skb)
{
	return keys_run(skb, skb->len);
}

char keys_license[] SEC("license") = "GPL";

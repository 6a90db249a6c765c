# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Frames of 9000 bytes, by native XDP where this kernel has multi-buffer XDP: as the namespace test.
exec bash selftests/netns/27-jumbo.sh native

// SPDX-License-Identifier: GPL-2.0-only
// The file that remembers what the kernel does not tell of attachments. Internal to attach.cpp.
#pragma once

#include <map>
#include <string>

#include "dataplane/attach.hpp"
#include "util/result.hpp"

namespace l7mark {

// By interface name. `present` and `ahead` are not kept.
using AttachRecords = std::map<std::string, Attachment>;
// By network namespace.
using NamespaceRecords = std::map<std::string, AttachRecords>;

// Nothing if there is no file. A file that can't be read is warned of and taken for none: the pins
// still say what is ours.
[[nodiscard]] NamespaceRecords read_records(const std::string& file);
// Replaces the file in one step, or removes it if there are no records. Makes its directory.
Status write_records(const std::string& file, const NamespaceRecords& records);

}  // namespace l7mark

// SPDX-License-Identifier: GPL-2.0-only
// Where an instance's maps, programs and links are pinned: /sys/fs/bpf/l7mark/INSTANCE/vN, N being
// the layout version of include/l7mark/maps.h, so that another layout's maps are never misread.
#pragma once

#include <string>
#include <vector>

#include "util/result.hpp"

namespace l7mark {

struct PinPaths {
  std::string instance;

  [[nodiscard]] std::string root() const;     // /sys/fs/bpf/l7mark/INSTANCE
  [[nodiscard]] std::string version() const;  // …/v2: maps
  [[nodiscard]] std::string programs() const;
  [[nodiscard]] std::string classid_program() const;  // for `tc filter … bpf da pinned`
  [[nodiscard]] std::string links() const;
  [[nodiscard]] std::string map(const std::string& name) const;
};

// Mounts bpffs on /sys/fs/bpf if it is not.
Status mount_bpffs();

// Makes the directories. Fails, naming them, if pins of another layout are there.
Status prepare_pins(const PinPaths& paths);

// Takes out the instance's directory with all that is pinned there. Attached links that have no
// other holder are detached by that.
Status remove_pins(const PinPaths& paths);

[[nodiscard]] std::vector<std::string> list_directory(const std::string& path);

}  // namespace l7mark

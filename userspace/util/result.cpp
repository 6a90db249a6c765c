// SPDX-License-Identifier: GPL-2.0-only
#include "util/result.hpp"

#include <cstring>

namespace l7mark {

std::string Error::message() const {
  std::string text = "cannot " + operation;
  if (!object.empty()) text += " " + object;
  if (code != 0) text += std::string(": ") + strerrordesc_np(code);
  if (!detail.empty()) text += code != 0 ? " (" + detail + ")" : ": " + detail;
  return text;
}

Error error_from_errno(std::string operation, std::string object, std::string detail) {
  const int saved = errno;
  return Error{std::move(operation), std::move(object), saved, std::move(detail)};
}

}  // namespace l7mark

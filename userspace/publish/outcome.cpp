// SPDX-License-Identifier: GPL-2.0-only
#include "publish/outcome.hpp"

#include <algorithm>
#include <utility>

namespace l7mark {

std::string_view to_string(WriteTrouble trouble) {
  switch (trouble) {
    case WriteTrouble::none:
      return "none";
    case WriteTrouble::gone:
      return "gone";
    case WriteTrouble::full:
      return "full";
    case WriteTrouble::wrong_type:
      return "wrong type";
    case WriteTrouble::lost:
      return "acknowledgements lost";
    case WriteTrouble::element:
      return "element refused";
    case WriteTrouble::denied:
      return "denied";
    case WriteTrouble::other:
      break;
  }
  return "other";
}

WriteTrouble WriteOutcome::trouble() const {
  const auto whole = std::find_if(failures.begin(), failures.end(), [](const WriteFailure& f) {
    return f.trouble != WriteTrouble::element;
  });
  if (whole != failures.end()) return whole->trouble;
  return failures.empty() ? WriteTrouble::none : WriteTrouble::element;
}

void WriteOutcome::fail(std::size_t index, WriteTrouble trouble, Error cause) {
  if (!error) error = std::move(cause);
  failures.push_back({index, trouble});
}

}  // namespace l7mark

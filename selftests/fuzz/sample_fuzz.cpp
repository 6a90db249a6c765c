// SPDX-License-Identifier: GPL-2.0-only
// A worker's way from ring-buffer records to answers. Input: records, each behind its length in two
// bytes; a record of exactly that size is given, so that a byte read beyond it is seen.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "dpi/classifier.hpp"

namespace {

class Sink : public l7mark::ClassifierSink {
 public:
  void on_answer(l7mark::Answer&& answer) override {
    if (answer.facts.hostname.size() > 1024 || answer.name.empty()) abort();
  }
  void on_dns(l7mark::DnsAnswer&& answer) override {
    if (answer.addresses.empty()) abort();
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static l7mark::Engine engine = [] {
    auto made = l7mark::Engine::make();
    if (!made.ok()) abort();
    return std::move(*made);
  }();
  Sink sink;
  l7mark::ClassifierOptions options;
  options.max_flows = options.max_waiting = options.max_reading = 8;
  l7mark::Classifier classifier(engine, sink, options);
  while (size >= 2) {
    const std::size_t length = static_cast<std::size_t>(data[0]) << 8 | data[1];
    data += 2;
    size -= 2;
    const std::size_t taken = length < size ? length : size;
    std::vector<std::byte> record(taken);
    if (taken != 0) std::memcpy(record.data(), data, taken);
    classifier.take(record);
    if (classifier.flows() > 33) abort();
    data += taken;
    size -= taken;
  }
  classifier.idle(~0ULL);
  classifier.finish();
  return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
#include "publish/sinks.hpp"

#include <cerrno>
#include <utility>

namespace l7mark {

namespace {

Status status_of(const WriteOutcome& outcome) {
  if (outcome.error) return *outcome.error;
  return success();
}

class IpsetSink final : public EntrySink {
 public:
  IpsetSink(Ipset& ipset, IpsetSpec spec, IpsetExtras extras)
      : ipset_(ipset), spec_(std::move(spec)), extras_(std::move(extras)) {}

  [[nodiscard]] std::string name() const override { return "ipset " + spec_.name; }
  [[nodiscard]] bool created() const override { return ipset_.created(spec_.name); }
  void disown() override { ipset_.disown(spec_.name); }
  Result<Ensured> ensure() override { return ipset_.ensure(spec_); }
  WriteOutcome add(std::span<const SetEntry> entries) override {
    return ipset_.add(spec_, entries, extras_);
  }
  WriteOutcome refresh(std::span<const SetEntry> entries) override { return add(entries); }
  WriteOutcome remove(std::span<const SetEntry> entries) override {
    return ipset_.remove(spec_, entries);
  }

  // The count alone: an adopted set may hold more, but never less.
  Result<bool> intact(std::size_t written, std::span<const SetEntry>) override {
    const auto header = ipset_.header(spec_.name);
    if (!header.ok()) return header.error();
    if (!header->has_value()) return Error{"look at", name(), ENOENT, {}};
    return (*header)->elements >= written;
  }

  Status withdraw(std::span<const SetEntry> entries, bool shared) override {
    if (shared || !created()) return status_of(remove(entries));
    Status status = ipset_.destroy(spec_.name);
    if (!status.ok() && status.error().code == EBUSY) L7MARK_TRY(ipset_.flush(spec_.name));
    return status;
  }

 private:
  Ipset& ipset_;
  IpsetSpec spec_;
  IpsetExtras extras_;
};

class NftSink final : public EntrySink {
 public:
  NftSink(Nft& nft, NftSpec spec) : nft_(nft), spec_(std::move(spec)) {}

  [[nodiscard]] std::string name() const override { return "nft set " + spec_.full_name(); }
  [[nodiscard]] bool created() const override { return nft_.created(spec_); }
  Result<Ensured> ensure() override { return nft_.ensure(spec_); }
  // Not Nft::add(): an element that an earlier run left, or that the user made, needs our timeout.
  WriteOutcome add(std::span<const SetEntry> entries) override {
    return spec_.timeout != 0 ? nft_.refresh(spec_, entries) : nft_.add(spec_, entries);
  }
  WriteOutcome refresh(std::span<const SetEntry> entries) override { return add(entries); }
  WriteOutcome remove(std::span<const SetEntry> entries) override {
    return nft_.remove(spec_, entries);
  }

  // The kernel does not tell how many elements a set has (before 6.16), so a few are looked up.
  Result<bool> intact(std::size_t, std::span<const SetEntry> sample) override {
    for (const SetEntry& entry : sample) {
      const auto found = nft_.contains(spec_, entry);
      if (!found.ok()) return found.error();
      if (!*found) return false;
    }
    return true;
  }

  Status withdraw(std::span<const SetEntry> entries, bool shared) override {
    if (shared || !created()) return status_of(remove(entries));
    Status status = nft_.destroy(spec_);
    if (!status.ok() && status.error().code == EBUSY) L7MARK_TRY(nft_.flush(spec_));
    return status;
  }

 private:
  Nft& nft_;
  NftSpec spec_;
};

}  // namespace

std::unique_ptr<EntrySink> make_ipset_sink(Ipset& ipset, const IpsetSpec& spec,
                                           const IpsetExtras& extras) {
  return std::make_unique<IpsetSink>(ipset, spec, extras);
}

std::unique_ptr<EntrySink> make_nft_sink(Nft& nft, const NftSpec& spec) {
  return std::make_unique<NftSink>(nft, spec);
}

}  // namespace l7mark

// SPDX-License-Identifier: GPL-2.0-only
// The one result type of the userspace library: a value, or an Error that names the operation, the
// object it was done to, and the cause.
#pragma once

#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace l7mark {

// Why an operation failed. `code` is a positive errno value, 0 where no system call was involved;
// it is taken by the constructor's caller before anything else can change errno.
struct Error {
  std::string operation;  // what was tried: "attach", "create set"
  std::string object;     // to what: "lan0", "NETIFY_ZOOM"
  int code = 0;
  std::string detail;  // the cause in words, or the remedy; may be empty

  // One line without a newline: "cannot attach lan0: Operation not permitted (needs root)".
  [[nodiscard]] std::string message() const;
};

// Builds an Error from the errno of the call that just failed.
[[nodiscard]] Error error_from_errno(std::string operation, std::string object,
                                     std::string detail = {});

// Empty success value of operations that return nothing.
struct Unit {};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // Must be called on a success only.
  T& value() & { return *std::get_if<0>(&state_); }
  const T& value() const& { return *std::get_if<0>(&state_); }
  T&& value() && { return std::move(*std::get_if<0>(&state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // Must be called on a failure only.
  [[nodiscard]] const Error& error() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

using Status = Result<Unit>;
[[nodiscard]] inline Status success() {
  return Unit{};
}

// Leaves the calling function with the error of `expression`, if it has one.
#define L7MARK_TRY(expression)                                                       \
  do {                                                                               \
    if (auto l7mark_try = (expression); !l7mark_try.ok()) return l7mark_try.error(); \
  } while (0)

}  // namespace l7mark

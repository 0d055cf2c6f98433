// Faults inside the library; the C ABI turns them into a status and texts.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "cnnx.h"

namespace cnnx {

struct Fault : std::exception {
  Fault(cnnx_status status_, std::string what_, std::string where_, std::string hint_)
      : status(status_), what_text(std::move(what_)), where(std::move(where_)), hint(std::move(hint_)) {}

  const char *what() const noexcept override { return what_text.c_str(); }

  cnnx_status status;
  std::string what_text, where, hint;
};

/// A bundle or an image that cannot be used.
[[noreturn]] inline void refuse(std::string what, std::string where, std::string hint) {
  throw Fault(CNNX_REFUSED, std::move(what), std::move(where), std::move(hint));
}

/// A requirement that the machine does not meet.
[[noreturn]] inline void lacks(std::string what, std::string where, std::string hint) {
  throw Fault(CNNX_LACKS, std::move(what), std::move(where), std::move(hint));
}

/// Arguments that are invalid or contradict each other.
[[noreturn]] inline void misuse(std::string what, std::string hint) {
  throw Fault(CNNX_USAGE, std::move(what), {}, std::move(hint));
}

/// The hint for a bundle that was damaged on its way.
inline const char *const kCopyAgain = "copy the bundle again from its source, or export it again";

}  // namespace cnnx

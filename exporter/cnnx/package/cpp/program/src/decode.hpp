// Decodes image files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cnnx.h"

namespace cnnx {

/// A decoded image: RGB or gray, with alpha dropped.
struct Decoded {
  std::unique_ptr<std::uint8_t, void (*)(void *)> pixels;
  cnnx_image image;
};

/// Refuses a file that cannot be decoded, has more than 8 bits in gray, or is too large.
Decoded decode(const std::string &file);

}  // namespace cnnx

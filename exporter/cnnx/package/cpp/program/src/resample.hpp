// Resamples 8-bit images bit for bit as Pillow does.
#pragma once

#include <cstdint>
#include <vector>

#include "manifest.hpp"

namespace cnnx {

/// Pixels in contiguous rows.
struct Pixels {
  Pixels(Size size_, int channels_)
      : size(size_),
        channels(channels_),
        values(static_cast<std::size_t>(size_.width) * static_cast<std::size_t>(size_.height) *
               static_cast<std::size_t>(channels_)) {}

  std::size_t row_bytes() const {
    return static_cast<std::size_t>(size.width) * static_cast<std::size_t>(channels);
  }
  std::uint8_t *row(int y) { return values.data() + static_cast<std::size_t>(y) * row_bytes(); }
  const std::uint8_t *row(int y) const { return values.data() + static_cast<std::size_t>(y) * row_bytes(); }

  Size size;
  int channels;
  std::vector<std::uint8_t> values;
};

/// A part of the resized image, inside it.
struct Window {
  int left = 0, top = 0;
  Size size;
};

/// A window of the image resized to `size`. Only what the window needs is computed.
Pixels resample(const Pixels &source, Size size, Window window, const Preprocessing &preprocessing);

}  // namespace cnnx

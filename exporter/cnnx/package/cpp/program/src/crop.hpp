// From an image to the 8-bit pixels that the network sees.
#pragma once

#include "cnnx.h"
#include "manifest.hpp"
#include "resample.hpp"

namespace cnnx {

/// An image of the caller as RGB or gray pixels. Refuses one without pixels, or that is too large.
Pixels converted(const cnnx_image &image, bool to_gray);

/// The size of an image after the resize.
Size resized(Size image, const Preprocessing &preprocessing);

/// Start of the center crop on an axis; negative where padding comes first.
int offset(int length, int crop);

/// Resized, cropped or padded, in the order of channels of `preprocessing.color`.
Pixels crop(const cnnx_image &image, const Preprocessing &preprocessing, Size size);

}  // namespace cnnx

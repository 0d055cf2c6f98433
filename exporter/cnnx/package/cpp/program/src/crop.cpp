// The geometry is torchvision's for the fit "shorter" with one length, and timm's for the others. The
// roundings are those of Python: halves go to the even neighbour.
#include "crop.hpp"

#include <algorithm>
#include <cmath>

#include "error.hpp"

namespace cnnx {
namespace {

constexpr double kMostPixels = 50e6;

std::size_t bytes_of(cnnx_color color) {
  switch (color) {
    case CNNX_GRAY:
      return 1;
    case CNNX_RGB:
    case CNNX_BGR:
      return 3;
    case CNNX_RGBA:
    case CNNX_BGRA:
      return 4;
  }
  misuse("the color of the image is not a cnnx_color", "give CNNX_RGB, for example");
}

/// ITU-R 601-2 luma in 16 bits of fraction, as in Pillow.
std::uint8_t luma(unsigned red, unsigned green, unsigned blue) {
  return static_cast<std::uint8_t>((red * 19595U + green * 38470U + blue * 7471U + 0x8000U) >> 16U);
}

/// A length in pixels; one that no image has stays too large, as an int could not hold it.
int length_of(double value) { return static_cast<int>(std::min(value, 1e9)); }

int round_even(double value) { return length_of(std::nearbyint(value)); }

void reverse_channels(Pixels &pixels) {
  for (std::size_t at = 0; at + 2 < pixels.values.size(); at += 3) {
    std::swap(pixels.values[at], pixels.values[at + 2]);
  }
}

Pixels padded(const Pixels &inside, Size size, int left, int top, const Preprocessing &preprocessing) {
  Pixels result(size, inside.channels);
  const auto channels = static_cast<std::size_t>(inside.channels);
  for (std::size_t at = 0; at < result.values.size(); ++at) {
    result.values[at] = preprocessing.fill[at % channels];
  }
  for (int y = 0; y < inside.size.height; ++y) {
    std::copy_n(inside.row(y), inside.row_bytes(),
                result.row(top + y) + static_cast<std::size_t>(left) * channels);
  }
  return result;
}

}  // namespace

Pixels converted(const cnnx_image &image, bool to_gray) {
  const std::size_t bytes = bytes_of(image.color);
  if (image.pixels == nullptr || image.width == 0 || image.height == 0) {
    misuse("the image has no pixels", "give pixels, width and height");
  }
  // In doubles, where the product of two sizes cannot overflow.
  if (static_cast<double>(image.width) * static_cast<double>(image.height) > kMostPixels) {
    refuse("the image is too large: more than 50,000,000 pixels", {},
           "scale the image down, or leave it out");
  }
  const std::size_t row_bytes = image.row_bytes == 0 ? image.width * bytes : image.row_bytes;
  if (row_bytes < image.width * bytes) {
    misuse("row_bytes is less than a row of pixels", "give 0 for contiguous rows");
  }
  const bool is_bgr = image.color == CNNX_BGR || image.color == CNNX_BGRA;
  const std::size_t red = is_bgr ? 2 : 0, green = 1, blue = is_bgr ? 0 : 2;
  Pixels result({static_cast<int>(image.width), static_cast<int>(image.height)}, to_gray ? 1 : 3);
  for (std::size_t y = 0; y < image.height; ++y) {
    const std::uint8_t *in = image.pixels + y * row_bytes;
    std::uint8_t *out = result.row(static_cast<int>(y));
    for (std::size_t x = 0; x < image.width; ++x, in += bytes) {
      if (image.color == CNNX_GRAY) {
        out = std::fill_n(out, result.channels, *in);
      } else if (to_gray) {
        *out++ = luma(in[red], in[green], in[blue]);
      } else {
        *out++ = in[red], *out++ = in[green], *out++ = in[blue];
      }
    }
  }
  return result;
}

Size resized(Size image, const Preprocessing &preprocessing) {
  if (!preprocessing.box) return image;
  const Size box = *preprocessing.box;
  if (preprocessing.fit == Fit::squash) return box;
  if (preprocessing.fit == Fit::shorter && preprocessing.is_one_length) {
    const auto [shorter, longer] = std::minmax(image.width, image.height);
    const auto scaled = static_cast<double>(std::int64_t{box.width} * longer);
    const int other = length_of(scaled / shorter);  // truncated
    return image.width <= image.height ? Size{box.width, other} : Size{other, box.width};
  }
  const double tall = static_cast<double>(image.height) / box.height;
  const double wide = static_cast<double>(image.width) / box.width;
  const double ratio = preprocessing.fit == Fit::shorter ? std::min(tall, wide) : std::max(tall, wide);
  return {std::max(1, round_even(image.width / ratio)), std::max(1, round_even(image.height / ratio))};
}

int offset(int length, int crop) {
  return length < crop ? -((crop - length) / 2) : round_even((length - crop) / 2.0);
}

Pixels crop(const cnnx_image &image, const Preprocessing &preprocessing, Size size) {
  const Pixels source = converted(image, preprocessing.color == Color::gray);
  const Size full = resized(source.size, preprocessing);
  if (static_cast<double>(full.width) * full.height > kMostPixels) {
    refuse("the resized image would be too large: " + std::to_string(full.width) + " x " +
               std::to_string(full.height) + " pixels, more than 50,000,000",
           {}, "crop its longer side, or leave the image out");
  }
  const int left = offset(full.width, size.width), top = offset(full.height, size.height);
  const Size visible{std::min(full.width, size.width), std::min(full.height, size.height)};
  const Window window{std::max(left, 0), std::max(top, 0), visible};
  Pixels inside = resample(source, full, window, preprocessing);
  if (preprocessing.color == Color::bgr) reverse_channels(inside);
  if (inside.size == size) return inside;
  return padded(inside, size, std::max(-left, 0), std::max(-top, 0), preprocessing);
}

}  // namespace cnnx

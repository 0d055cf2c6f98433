// stb_image decodes; its bytes can differ in the last bit from those of other JPEG decoders.
#include "decode.hpp"

#include <limits>

#include "error.hpp"
#include "files.hpp"

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_ONLY_PNM
#include <stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace cnnx {
namespace {

constexpr std::int64_t kMostPixels = 50'000'000;
constexpr std::size_t kMostBytes = std::size_t{1} << 29U;

}  // namespace

Decoded decode(const std::string &file) {
  const std::string content = read_file(file, kMostBytes);
  const auto *bytes = reinterpret_cast<const stbi_uc *>(content.data());
  const int size = static_cast<int>(content.size());
  const auto fail = [&](const std::string &what) {
    refuse(what, file, "give a JPEG, PNG, BMP, GIF or PNM image, or leave it out");
  };
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(bytes, size, &width, &height, &channels) == 0) {
    fail(std::string("cannot be decoded: ") + stbi_failure_reason());
  }
  if (std::int64_t{width} * height > kMostPixels) fail("the image is too large: more than 50,000,000 pixels");
  const bool is_gray = channels < 3;
  if (is_gray && stbi_is_16_bit_from_memory(bytes, size) != 0) fail("has samples of more than 8 bits");
  const int wanted = is_gray ? 1 : 3;
  Decoded result{{stbi_load_from_memory(bytes, size, &width, &height, &channels, wanted), stbi_image_free},
                 {}};
  if (!result.pixels) fail(std::string("cannot be decoded: ") + stbi_failure_reason());
  result.image = {result.pixels.get(), static_cast<std::size_t>(width), static_cast<std::size_t>(height), 0,
                  is_gray ? CNNX_GRAY : CNNX_RGB};
  return result;
}

}  // namespace cnnx

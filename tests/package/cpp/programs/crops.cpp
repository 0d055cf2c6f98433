// Crops and prepared inputs of many images.
//
// Reads, until the end of the input: the length and name of a bundle, the number of images, and for each a
// color (cnnx_color), width, height and bytes per row, all as 32-bit integers, and its rows. Writes for each
// the crop and the prepared input.
#include <cnnx.h>

#include <cstdio>
#include <string>
#include <vector>

namespace {

bool read(void *to, std::size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

std::size_t number() {
  std::uint32_t value = 0;
  if (!read(&value, sizeof value)) std::exit(5);
  return value;
}

}  // namespace

int main() {
  std::uint32_t length = 0;
  while (read(&length, sizeof length)) {
    std::string name(length, '\0');
    read(name.data(), length);
    try {
      const cnnx::Classifier net(name, {"none", nullptr, nullptr, 0, 0});
      const cnnx::Description network = net.describe();
      std::vector<std::uint8_t> crop(network.crop_height * network.crop_width * network.channels),
          input(network.image_bytes);
      for (std::size_t left = number(); left > 0; --left) {
        cnnx::Image image{};
        image.color = static_cast<cnnx_color>(number());
        image.width = number(), image.height = number(), image.row_bytes = number();
        std::vector<std::uint8_t> pixels(image.row_bytes * image.height);
        read(pixels.data(), pixels.size());
        image.pixels = pixels.data();
        cnnx::Classifier::check(cnnx_crop(net.get(), &image, crop.data()));
        cnnx::Classifier::check(cnnx_prepare(net.get(), &image, input.data()));
        std::fwrite(crop.data(), 1, crop.size(), stdout);
        std::fwrite(input.data(), 1, input.size(), stdout);
      }
    } catch (const cnnx::Error &error) {
      std::fprintf(stderr, "%s\n", error.what());
      return error.status();
    }
  }
}

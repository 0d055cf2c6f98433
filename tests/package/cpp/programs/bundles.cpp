// Opens each bundle that standard input names, a line each, and uses it. Prints a line for each: the status,
// and what is wrong.
#include <cnnx.h>

#include <array>
#include <iostream>
#include <string>
#include <vector>

namespace {

void use(const std::string &name) {
  cnnx::Classifier net(name);
  const std::vector<std::uint8_t> pixels(48 * 40 * 3, 90);
  cnnx::Image image{pixels.data(), 48, 40, 0, CNNX_RGB};
  const cnnx::Description network = net.describe();
  if (network.image_bytes < 10'000'000) {
    std::vector<std::uint8_t> input(network.image_bytes);
    cnnx_prepare(net.get(), &image, input.data());
  }
  net.self_test();
  net.classify(image, 3);
}

}  // namespace

int main() {
  for (std::string name; std::getline(std::cin, name);) {
    try {
      use(name);
      std::cout << "0 used" << std::endl;
    } catch (const cnnx::Error &error) {
      std::cout << error.status() << ' ' << error.fault() << std::endl;
    }
  }
}

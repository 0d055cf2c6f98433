// From crops to the input of the graph.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "manifest.hpp"

namespace cnnx {

class NetworkInput {
 public:
  explicit NetworkInput(const Manifest &manifest);

  /// Writes one image as the graph takes it: normalized floats, or pixels in the order of its channels.
  /// `pixels` have `Manifest::input_size`, and the preprocessing's order of channels.
  void write(const std::uint8_t *pixels, void *input) const;

  /// A frame that the graph's Resize turns into this crop again; the crop itself if the graph takes crops.
  std::vector<std::uint8_t> frame_of(const std::uint8_t *crop) const;

 private:
  const Manifest &manifest_;
  std::array<std::array<float, 256>, 3> table_{};  // every value that a normalized byte can have
};

}  // namespace cnnx

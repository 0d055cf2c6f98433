// reference.npz: images and expected logits of the self-test.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace cnnx {

struct Reference {
  std::size_t images = 0;
  std::vector<std::uint8_t> crops;     // (images, height, width, channels), in the preprocessing's color
  std::vector<float> original, graph;  // (images, classes)
};

/// Reads the content of the file, whose hash has been checked. Refuses everything that is not in the format
/// that cnnx writes; `where` is named in messages.
Reference read_reference(const std::string &content, const Manifest &manifest,
                         const std::filesystem::path &where);

}  // namespace cnnx

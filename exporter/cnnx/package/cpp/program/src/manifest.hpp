// manifest.json: what the program needs of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cnnx.h"

namespace cnnx {

struct Size {
  int width = 0;
  int height = 0;
};

inline bool operator==(Size a, Size b) { return a.width == b.width && a.height == b.height; }
inline bool operator!=(Size a, Size b) { return !(a == b); }

enum class Color { rgb, bgr, gray };
enum class Fit { shorter, longer, letterbox, squash, none };
enum class Interpolation { bilinear, bicubic, box, nearest };
enum class Precision { fp32, fp16, int8 };

inline int channels_of(Color color) { return color == Color::gray ? 1 : 3; }

/// From an image to the network's input. See docs/applications.md of cnnx.
struct Preprocessing {
  Color color = Color::rgb;
  Fit fit = Fit::shorter;
  std::optional<Size> box;     // what the image is resized to; none for the fit "none"
  bool is_one_length = false;  // `resize` was one number: for "shorter", that side gets this length
  Interpolation interpolation = Interpolation::bilinear;
  bool may_start_with_columns = false;  // as Pillow does since 13.0; see resample.cpp
  std::array<float, 3> mean{}, std{};
  float divisor = 255;
  std::array<std::uint8_t, 3> fill{};
};

/// How the graph takes images.
struct InputFormat {
  cnnx_element element = CNNX_FLOAT32;
  cnnx_layout layout = CNNX_NCHW;
  Color color = Color::rgb;
  std::optional<Size> frame;  // the graph takes images of this size, and resizes them itself
};

struct Manifest {
  std::string name;
  Precision precision = Precision::fp32;
  std::string input, output;    // names of the tensors
  std::size_t least_batch = 1;  // of the graph
  std::size_t most_batch = 1;
  std::size_t classes = 0;
  Size crop;  // of the pixels before normalization
  Preprocessing preprocessing;
  InputFormat format;
  std::map<std::string, std::string> files;  // portable file -> SHA-256

  int channels() const { return channels_of(preprocessing.color); }
  Size input_size() const { return format.frame.value_or(crop); }
  std::size_t values() const;       ///< of one image at the graph's input
  std::size_t image_bytes() const;  ///< the same in bytes
  std::vector<std::int64_t> input_shape(std::size_t images) const;
};

const char *name_of(Precision precision);

Manifest read_manifest(const std::filesystem::path &bundle);

}  // namespace cnnx

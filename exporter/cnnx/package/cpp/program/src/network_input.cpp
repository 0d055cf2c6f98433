#include "network_input.hpp"

#include <algorithm>

#include "crop.hpp"

namespace cnnx {
namespace {

/// Writes (height, width, channels) pixels in a layout; `value` gives what becomes of a byte of a channel.
template <typename Out, typename Value>
void arrange(const std::uint8_t *pixels, std::size_t area, std::size_t channels, cnnx_layout layout, Out *out,
             const Value &value) {
  for (std::size_t i = 0; i < area; ++i) {
    for (std::size_t channel = 0; channel < channels; ++channel) {
      out[layout == CNNX_NHWC ? i * channels + channel : channel * area + i] =
          value(pixels + i * channels, channel);
    }
  }
}

/// The crop's row (or column) for each of a frame's; padding is not in a frame.
std::vector<std::size_t> sources(int length, int scaled, int crop) {
  std::vector<std::size_t> places;
  for (int i = 0; i < length; ++i) {
    const int center = std::clamp(static_cast<int>((i + 0.5) * scaled / length), 0, scaled - 1);
    places.push_back(static_cast<std::size_t>(std::clamp(center - offset(scaled, crop), 0, crop - 1)));
  }
  return places;
}

}  // namespace

NetworkInput::NetworkInput(const Manifest &manifest) : manifest_(manifest) {
  const Preprocessing &p = manifest.preprocessing;
  for (std::size_t channel = 0; channel < table_.size(); ++channel) {
    const float std = p.std[channel] > 0 ? p.std[channel] : 1;  // channels that a gray image does not have
    // Each step is rounded to float32, as in torchvision and in cnnx.
    for (std::size_t byte = 0; byte < table_[channel].size(); ++byte) {
      const float divided = static_cast<float>(byte) / p.divisor;
      const float centered = divided - p.mean[channel];
      table_[channel][byte] = centered / std;
    }
  }
}

void NetworkInput::write(const std::uint8_t *pixels, void *input) const {
  const InputFormat &format = manifest_.format;
  const auto channels = static_cast<std::size_t>(manifest_.channels());
  const std::size_t area = manifest_.values() / channels;
  if (format.element == CNNX_FLOAT32) {
    arrange(pixels, area, channels, format.layout, static_cast<float *>(input),
            [&](const std::uint8_t *pixel, std::size_t channel) { return table_[channel][pixel[channel]]; });
    return;
  }
  const bool is_reversed = format.color != manifest_.preprocessing.color;
  arrange(pixels, area, channels, format.layout, static_cast<std::uint8_t *>(input),
          [&](const std::uint8_t *pixel, std::size_t channel) {
            return pixel[is_reversed ? channels - 1 - channel : channel];
          });
}

std::vector<std::uint8_t> NetworkInput::frame_of(const std::uint8_t *crop) const {
  const auto channels = static_cast<std::size_t>(manifest_.channels());
  const Size size = manifest_.crop, frame = manifest_.input_size();
  const Size scaled = manifest_.format.frame ? resized(frame, manifest_.preprocessing) : size;
  const auto rows = sources(frame.height, scaled.height, size.height);
  const auto columns = sources(frame.width, scaled.width, size.width);
  std::vector<std::uint8_t> result;
  result.reserve(manifest_.values());
  for (const std::size_t row : rows) {
    for (const std::size_t column : columns) {
      const std::uint8_t *pixel = crop + (row * static_cast<std::size_t>(size.width) + column) * channels;
      result.insert(result.end(), pixel, pixel + channels);
    }
  }
  return result;
}

}  // namespace cnnx

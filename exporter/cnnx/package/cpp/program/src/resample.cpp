// Pillow resamples an axis at a time, and rounds to 8 bits after each: first rows and then columns, but since
// 13.0 the other way round where the height shrinks by more than twice as many pixels as the width (pull
// request 9549). Results differ by 1, so the release that exported a bundle decides. A pixel is a weighted
// mean of the source pixels under a kernel, which is stretched when the image shrinks: that is the
// antialiasing. Weights are computed in doubles, normalized, and rounded to fixed point. The order of every
// floating-point operation here is Pillow's, and the build keeps the compiler from fusing them, so that
// weights are equal to the last bit.
#include "resample.hpp"

#include <algorithm>
#include <cmath>

namespace cnnx {
namespace {

/// Weights have this many fractional bits: 32 bits hold a byte, two bits for weights beyond 1, and a sign.
constexpr int kFraction = 32 - 8 - 2;
constexpr std::int32_t kOne = std::int32_t{1} << kFraction;

struct Kernel {
  double (*weight)(double distance);
  double support;  // it is zero beyond this distance
};

double triangle(double x) {
  x = std::fabs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

/// Keys' cubic convolution with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

Kernel kernel_of(Interpolation interpolation) {
  if (interpolation == Interpolation::bicubic) return {cubic, 2.0};
  if (interpolation == Interpolation::box) return {box, 0.5};
  return {triangle, 1.0};
}

/// The source pixels of one pixel, and their weights.
struct Taps {
  int first = 0;
  std::vector<std::int32_t> weights;
  int end() const { return first + static_cast<int>(weights.size()); }
};

std::int32_t fixed_point(double weight) {
  return static_cast<std::int32_t>(weight < 0 ? -0.5 + weight * kOne : 0.5 + weight * kOne);
}

/// The taps of pixels `begin` to `begin + count` of an axis that is resized from `from` to `to` pixels.
std::vector<Taps> taps_of(const Kernel &kernel, int from, int to, int begin, int count) {
  const double scale = static_cast<double>(from) / to;
  const double stretch = std::max(scale, 1.0);
  const double support = kernel.support * stretch;
  const double shrink = 1.0 / stretch;
  std::vector<Taps> axis(static_cast<std::size_t>(count));
  std::vector<double> exact;
  for (int i = 0; i < count; ++i) {
    Taps &taps = axis[static_cast<std::size_t>(i)];
    if (from == to) {  // Pillow skips the axis
      taps = {begin + i, {kOne}};
      continue;
    }
    const double center = (begin + i + 0.5) * scale;
    taps.first = std::max(static_cast<int>(std::floor(center - support + 0.5)), 0);
    const int end = std::min(static_cast<int>(std::floor(center + support + 0.5)), from);
    exact.clear();
    double sum = 0.0;
    for (int x = 0; x < end - taps.first; ++x) {
      exact.push_back(kernel.weight((x + taps.first - center + 0.5) * shrink));
      sum += exact.back();
    }
    for (const double weight : exact) taps.weights.push_back(fixed_point(sum != 0.0 ? weight / sum : weight));
  }
  return axis;
}

std::uint8_t rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFraction, 0, 255));
}

/// Resizes each row; `first_row` is the source row of the result's first.
Pixels along_rows(const Pixels &source, const std::vector<Taps> &columns, int first_row, int rows) {
  Pixels result({static_cast<int>(columns.size()), rows}, source.channels);
  const auto channels = static_cast<std::size_t>(source.channels);
  for (int y = 0; y < rows; ++y) {
    const std::uint8_t *in = source.row(first_row + y);
    std::uint8_t *out = result.row(y);
    for (const Taps &taps : columns) {
      for (std::size_t channel = 0; channel < channels; ++channel) {
        std::size_t at = static_cast<std::size_t>(taps.first) * channels + channel;
        std::int32_t sum = kOne / 2;
        for (const std::int32_t weight : taps.weights) sum += weight * in[at], at += channels;
        *out++ = rounded(sum);
      }
    }
  }
  return result;
}

/// Resizes each column; `first_row` is the row that the source starts with.
Pixels along_columns(const Pixels &source, const std::vector<Taps> &rows, int first_row) {
  Pixels result({source.size.width, static_cast<int>(rows.size())}, source.channels);
  std::vector<std::int32_t> sums(source.row_bytes());
  int y = 0;
  for (const Taps &taps : rows) {
    std::fill(sums.begin(), sums.end(), kOne / 2);
    int in = taps.first - first_row;
    for (const std::int32_t weight : taps.weights) {
      const std::uint8_t *pixel = source.row(in++);
      for (std::int32_t &sum : sums) sum += weight * *pixel++;
    }
    std::transform(sums.begin(), sums.end(), result.row(y++), rounded);
  }
  return result;
}

/// Source positions for the nearest neighbour. Pillow adds the step up, and so collects its rounding errors;
/// a position outside the source gives black.
std::vector<int> nearest_of(int from, int to, int begin, int count) {
  const double step = static_cast<double>(from) / to;
  std::vector<int> places;
  double place = step * 0.5;
  for (int i = 0; i < begin + count; ++i, place += step) {
    if (i >= begin) places.push_back(place < from ? static_cast<int>(place) : -1);
  }
  return places;
}

Pixels nearest(const Pixels &source, Size size, Window window) {
  const auto columns = nearest_of(source.size.width, size.width, window.left, window.size.width);
  const auto rows = nearest_of(source.size.height, size.height, window.top, window.size.height);
  Pixels result(window.size, source.channels);
  for (int y = 0; y < window.size.height; ++y) {
    const int from = rows[static_cast<std::size_t>(y)];
    std::uint8_t *out = result.row(y);
    for (const int column : columns) {
      for (int channel = 0; channel < source.channels; ++channel) {
        *out++ = from < 0 || column < 0 ? 0 : source.row(from)[column * source.channels + channel];
      }
    }
  }
  return result;
}

}  // namespace

Pixels resample(const Pixels &source, Size size, Window window, const Preprocessing &preprocessing) {
  const Size from = source.size;
  if (preprocessing.interpolation == Interpolation::nearest && size != from) {
    return nearest(source, size, window);
  }
  const Kernel kernel = kernel_of(preprocessing.interpolation);
  const auto columns = taps_of(kernel, from.width, size.width, window.left, window.size.width);
  const auto rows = taps_of(kernel, from.height, size.height, window.top, window.size.height);
  const bool is_flattened =
      size.height < from.height && from.height - size.height > 2 * (from.width - size.width);
  if (preprocessing.may_start_with_columns && is_flattened) {
    return along_rows(along_columns(source, rows, 0), columns, 0, window.size.height);
  }
  int first = from.height, end = 0;
  for (const Taps &taps : rows) first = std::min(first, taps.first), end = std::max(end, taps.end());
  return along_columns(along_rows(source, columns, first, std::max(end - first, 0)), rows, first);
}

}  // namespace cnnx

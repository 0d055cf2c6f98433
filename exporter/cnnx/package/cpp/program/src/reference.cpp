// The file is a ZIP of consecutive members without compression. Each member has a local header (no flags,
// sizes included, 30 bytes and the name), and is a .npy file of version 1.0 in C order.
#include "reference.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <string_view>

#include "error.hpp"
#include "files.hpp"

namespace cnnx {
namespace {

constexpr std::size_t kLargest = std::size_t{64} << 20U;
constexpr std::size_t kLocalHeader = 30;
constexpr std::size_t kNpyHeader = 10;

struct Array {
  std::vector<std::size_t> shape;
  std::string_view data;
};

class Reader {
 public:
  Reader(std::string_view data, const std::filesystem::path &where) : data_(data), where_(where) {}

  std::map<std::string, Array> arrays() {
    if (data_.size() > kLargest) fail("it is too large");
    std::map<std::string, Array> found;
    while (data_.substr(at_, 4) == "PK\3\4") {
      const auto [name, content] = member();
      if (!found.emplace(name, array(name, content)).second) fail(name + " is duplicated");
    }
    if (data_.substr(at_, 4) != "PK\1\2") fail("it is not a ZIP file, or it is truncated");
    return found;
  }

  [[noreturn]] void fail(const std::string &what) const {
    refuse("reference.npz is damaged: " + what, where_.string(), kCopyAgain);
  }

 private:
  std::uint32_t number(std::size_t at, int bytes) const {
    std::uint32_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) {
      value = value << 8U | static_cast<unsigned char>(data_[at + static_cast<std::size_t>(i)]);
    }
    return value;
  }

  std::pair<std::string, std::string_view> member() {
    if (data_.size() - at_ < kLocalHeader) fail("it ends inside a header");
    const std::uint32_t flags = number(at_ + 6, 2), method = number(at_ + 8, 2), crc = number(at_ + 14, 4);
    const std::uint32_t packed = number(at_ + 18, 4), size = number(at_ + 22, 4);
    const std::size_t length = number(at_ + 26, 2), extra = number(at_ + 28, 2);
    at_ += kLocalHeader;
    // The sum cannot overflow: the lengths have 16 bits, and the size 32.
    if (length + extra + size > data_.size() - at_) fail("a member is truncated");
    const std::string name(data_.substr(at_, length));
    const std::string_view content = data_.substr(at_ + length + extra, size);
    at_ += length + extra + size;
    if (flags != 0 || method != 0 || packed != size) {
      fail(shown(name) + " is compressed or streamed, which is not supported");
    }
    if (crc32(content) != crc) fail(shown(name) + " has a wrong checksum");
    return {name, content};
  }

  Array array(const std::string &name, std::string_view content) const {
    static const std::map<std::string, std::pair<const char *, std::size_t>> kTypes = {
        {"crops.npy", {"|u1", 1}}, {"original.npy", {"<f4", 4}}, {"graph.npy", {"<f4", 4}},
        {"ids.npy", {"|u1", 1}},   {"used.npy", {"|u1", 1}},     {"labels.npy", {"<i8", 8}}};
    const auto type = kTypes.find(name);
    if (type == kTypes.end()) fail("'" + shown(name) + "' is not a known member");
    const auto &[descr, width] = type->second;
    if (content.size() < kNpyHeader || content.substr(0, 8) != std::string_view("\x93NUMPY\1\0", 8)) {
      fail(name + " is not a .npy file of version 1.0");
    }
    const std::size_t length =
        static_cast<unsigned char>(content[8]) | std::size_t{static_cast<unsigned char>(content[9])} << 8U;
    if (length > content.size() - kNpyHeader) fail(name + " is truncated");
    Array result{shape(name, content.substr(kNpyHeader, length), descr), content.substr(kNpyHeader + length)};
    std::size_t bytes = width;
    for (const std::size_t each : result.shape) {
      if (each > kLargest || (each != 0 && bytes > kLargest / each)) fail(name + " has an impossible shape");
      bytes *= each;
    }
    if (bytes != result.data.size()) fail(name + " does not have the number of values of its shape");
    return result;
  }

  /// The lengths in a header such as {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }.
  std::vector<std::size_t> shape(const std::string &name, std::string_view header, const char *descr) const {
    const std::string start = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (";
    const std::size_t close = header.find(')', start.size());
    const bool known =
        header.substr(0, start.size()) == start && close != std::string_view::npos &&
        header.substr(close, 4) == "), }" && header.back() == '\n' &&
        header.substr(close + 4, header.size() - close - 5).find_first_not_of(' ') == std::string_view::npos;
    if (!known) fail(name + " should be a plain array of " + descr);
    std::vector<std::size_t> lengths;
    std::string digits;
    for (const char each : header.substr(start.size(), close - start.size() + 1)) {
      if (each >= '0' && each <= '9' && digits.size() < 9) {
        digits += each;
      } else if (each == ',' || each == ')') {
        if (!digits.empty()) lengths.push_back(std::stoul(digits));
        digits.clear();
      } else if (each != ' ') {
        fail(name + " has an unreadable shape");
      }
    }
    return lengths;
  }

  static std::uint32_t crc32(std::string_view data) {
    static const auto kTable = [] {
      std::array<std::uint32_t, 256> table{};
      for (std::uint32_t i = 0; i < table.size(); ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) {
          value = (value & 1U) != 0 ? 0xEDB88320U ^ (value >> 1U) : value >> 1U;
        }
        table[i] = value;
      }
      return table;
    }();
    std::uint32_t crc = 0xFFFFFFFFU;
    for (const char each : data) crc = kTable[(crc ^ static_cast<unsigned char>(each)) & 0xFFU] ^ (crc >> 8U);
    return ~crc;
  }

  std::string_view data_;
  const std::filesystem::path &where_;
  std::size_t at_ = 0;
};

std::vector<float> floats(const Array &array) {
  static_assert(sizeof(float) == 4, "the file has 32-bit floats");
  std::vector<float> values(array.data.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), array.data.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace

Reference read_reference(const std::string &content, const Manifest &manifest,
                         const std::filesystem::path &where) {
  Reader reader(content, where);
  const auto arrays = reader.arrays();
  for (const char *name : {"crops.npy", "original.npy", "graph.npy", "ids.npy", "used.npy"}) {
    if (arrays.count(name) == 0) reader.fail(std::string(name) + " is missing");
  }
  const Array &crops = arrays.at("crops.npy");
  const std::size_t images = crops.shape.empty() ? 0 : crops.shape[0];
  const auto expect = [&](const char *name, const std::vector<std::size_t> &shape) {
    if (arrays.at(name).shape != shape) {
      reader.fail(std::string(name) + " does not fit the network, or the other arrays");
    }
  };
  expect("crops.npy",
         {images, static_cast<std::size_t>(manifest.crop.height),
          static_cast<std::size_t>(manifest.crop.width), static_cast<std::size_t>(manifest.channels())});
  expect("original.npy", {images, manifest.classes});
  expect("graph.npy", {images, manifest.classes});
  if (images == 0) reader.fail("it contains no images");

  Reference result;
  result.images = images;
  result.crops.assign(crops.data.begin(), crops.data.end());
  result.original = floats(arrays.at("original.npy"));
  result.graph = floats(arrays.at("graph.npy"));
  for (const auto *values : {&result.original, &result.graph}) {
    if (!std::all_of(values->begin(), values->end(), [](float x) { return std::isfinite(x); })) {
      reader.fail("it has logits that are not finite");
    }
  }
  return result;
}

}  // namespace cnnx

#include "manifest.hpp"

#include <cstdlib>
#include <string_view>

#include "error.hpp"
#include "files.hpp"
#include "sealed.hpp"

namespace cnnx {
namespace {

constexpr int kLargestSide = 1 << 15U;
constexpr std::int64_t kMostPixels = 50'000'000;  // as in cnnx: larger images are refused
constexpr int kMostBatch = 1 << 20U;
constexpr int kMostClasses = 1 << 24U;

template <typename Value, std::size_t N>
using Names = std::array<std::pair<const char *, Value>, N>;

constexpr Names<Color, 3> kColors = {{{"rgb", Color::rgb}, {"bgr", Color::bgr}, {"gray", Color::gray}}};
constexpr Names<Fit, 5> kFits = {{{"shorter", Fit::shorter},
                                  {"longer", Fit::longer},
                                  {"letterbox", Fit::letterbox},
                                  {"squash", Fit::squash},
                                  {"none", Fit::none}}};
// Not lanczos: its weights are sines, whose last bit depends on the C library.
constexpr Names<Interpolation, 4> kInterpolations = {{{"bilinear", Interpolation::bilinear},
                                                      {"bicubic", Interpolation::bicubic},
                                                      {"box", Interpolation::box},
                                                      {"nearest", Interpolation::nearest}}};
constexpr Names<Precision, 3> kPrecisions = {
    {{"fp32", Precision::fp32}, {"fp16", Precision::fp16}, {"int8", Precision::int8}}};
constexpr Names<cnnx_layout, 2> kLayouts = {{{"nchw", CNNX_NCHW}, {"nhwc", CNNX_NHWC}}};

template <typename Value, std::size_t N>
std::optional<Value> find(std::string_view name, const Names<Value, N> &known) {
  for (const auto &[each, value] : known) {
    if (name == each) return value;
  }
  return std::nullopt;
}

template <typename Value, std::size_t N>
std::string listed(const Names<Value, N> &known) {
  std::string text;
  for (const auto &each : known) text += (text.empty() ? "" : ", ") + std::string(each.first);
  return text;
}

[[noreturn]] void uncovered(const std::string &what, const std::string &covered, const Field &field) {
  try {
    field.refuse(covered.empty() ? what : what + "; it covers " + covered);
  } catch (Fault &fault) {
    fault.hint = "use cnnx.load in Python, or export the network with preprocessing that this program covers";
    throw;
  }
}

template <typename Value, std::size_t N>
Value choice(const Field &field, const Names<Value, N> &known) {
  const std::string name = field.text();
  const auto found = find(name, known);
  if (!found) uncovered("is '" + shown(name) + "', which this program does not cover", listed(known), field);
  return *found;
}

int side(const Field &field) { return static_cast<int>(field.integer(1, kLargestSide)); }

void read_resize(const Field &table, Preprocessing &result) {
  const Field resize = table.at("resize");
  if (resize.is_null()) {
    result.box.reset();
  } else if (resize.is_array()) {
    if (resize.size() != 2) resize.refuse("should be [height, width]");
    result.box = Size{side(resize[1]), side(resize[0])};
  } else {
    result.box = Size{side(resize), side(resize)};
    result.is_one_length = true;
  }
  if (result.box.has_value() == (result.fit == Fit::none)) resize.refuse("contradicts the fit");
}

/// One value for each channel of the network's input.
template <typename Read>
void each_channel(const Field &list, int channels, bool one_is_enough, const Read &read) {
  const std::size_t given = list.size();
  const auto wanted = static_cast<std::size_t>(channels);
  if (given != wanted && !(one_is_enough && given == 1)) {
    list.refuse("should have " + std::to_string(channels) + " values, one per channel");
  }
  for (std::size_t channel = 0; channel < wanted; ++channel) read(channel, list[given == 1 ? 0 : channel]);
}

float positive(const Field &field) {
  const auto found = static_cast<float>(field.number());
  if (!(found > 0)) field.refuse("should be a positive number");
  return found;
}

void read_resampling(const Field &table, Preprocessing &result) {
  result.interpolation = choice(table.at("interpolation"), kInterpolations);
  if (const auto resampling = table.find("resampling"); resampling && resampling->text() != "pillow") {
    uncovered("is '" + shown(resampling->text()) + "', which this program does not cover", "pillow",
              *resampling);
  }
}

Preprocessing read_preprocessing(const Field &table, bool graph_resizes) {
  table.only({"color", "resize", "interpolation", "mean", "std", "fit", "fill", "divisor", "resampling",
              "exif", "assumed"});
  Preprocessing result;
  result.color = choice(table.at("color"), kColors);
  // Bundles of older versions lack the keys that are looked up by find.
  if (const auto fit = table.find("fit")) result.fit = choice(*fit, kFits);
  if (const auto divisor = table.find("divisor")) result.divisor = positive(*divisor);
  if (const auto exif = table.find("exif"); exif && exif->boolean()) {
    uncovered("is true, which this program does not cover: it does not read EXIF", "", *exif);
  }
  read_resize(table, result);
  if (result.box && !graph_resizes) read_resampling(table, result);
  const int channels = channels_of(result.color);
  each_channel(table.at("mean"), channels, false, [&](std::size_t channel, const Field &value) {
    result.mean[channel] = static_cast<float>(value.number());
  });
  each_channel(table.at("std"), channels, false,
               [&](std::size_t channel, const Field &value) { result.std[channel] = positive(value); });
  if (const auto fill = table.find("fill")) {
    each_channel(*fill, channels, true, [&](std::size_t channel, const Field &value) {
      result.fill[channel] = static_cast<std::uint8_t>(value.integer(0, 255));
    });
  }
  return result;
}

/// The text up to a separator, which is dropped from the front of `text`.
std::string_view word(std::string_view &text, char separator) {
  const std::size_t end = text.find(separator);
  const std::string_view result = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return result;
}

int frame_side(std::string_view text) {
  constexpr std::size_t kDigits = 5;
  const bool valid = !text.empty() && text.size() <= kDigits &&
                     text.find_first_not_of("0123456789") == std::string_view::npos;
  return valid ? std::atoi(std::string(text).c_str()) : 0;
}

/// A format such as "float32-nchw", "uint8-nhwc" or "uint8-nchw-bgr:1080x1920".
InputFormat read_format(const Field &field, Color color) {
  const std::string name = field.text();
  InputFormat result{CNNX_FLOAT32, CNNX_NCHW, color, std::nullopt};
  if (name == "float32-nchw") return result;
  std::string_view rest = name;
  std::string_view kind = word(rest, ':');
  const bool is_raw = word(kind, '-') == "uint8";
  const auto layout = find(word(kind, '-'), kLayouts);
  const auto order = kind.empty() ? color : find(kind, kColors);
  const bool has_frame = name.find(':') != std::string::npos;
  const int height = frame_side(word(rest, 'x')), width = frame_side(rest);
  const bool fits =
      !has_frame || (height > 0 && width > 0 && height <= kLargestSide && width <= kLargestSide);
  if (!is_raw || !layout || !order || !fits) {
    uncovered("is '" + shown(name) + "', which this program does not cover", "", field);
  }
  if (channels_of(*order) != channels_of(color)) field.refuse("has other channels than preprocessing.color");
  result.element = CNNX_UINT8;
  result.layout = *layout;
  result.color = *order;
  if (has_frame) result.frame = Size{width, height};
  return result;
}

void check_input(const Field &input, const Manifest &manifest) {
  const bool is_raw = manifest.format.element == CNNX_UINT8;
  const Field type = input.at("type");
  if (type.text() != (is_raw ? "uint8" : "float32")) {
    type.refuse("is '" + shown(type.text()) + "', but recipe.input.format states " +
                (is_raw ? "uint8" : "float32"));
  }
  const Field layout = input.at("layout");
  const bool is_nhwc = manifest.format.layout == CNNX_NHWC;
  if (layout.text() != (is_nhwc ? "NHWC" : "NCHW")) layout.refuse("contradicts recipe.input.format");
  const Field shape = input.at("shape");
  const auto expected = manifest.input_shape(1);
  if (shape.size() != expected.size()) shape.refuse("should have four lengths");
  for (std::size_t axis = 1; axis < expected.size(); ++axis) {
    if (shape[axis].integer(1, kLargestSide) != expected[axis]) {
      shape[axis].refuse("contradicts recipe.input");
    }
  }
}

void check_pixels(Size size, const Field &field) {
  if (std::int64_t{size.width} * size.height > kMostPixels) {
    field.refuse("has more than " + std::to_string(kMostPixels) + " pixels");
  }
}

void read_batch(const Field &root, Manifest &result) {
  const Field batch = root.at("batch");
  result.least_batch = static_cast<std::size_t>(batch[0].integer(1, kMostBatch));
  result.most_batch = static_cast<std::size_t>(batch[1].integer(1, kMostBatch));
  if (result.least_batch > result.most_batch) batch.refuse("should be [smallest, largest]");
  const Field fixed = root.at("inputs")[0].at("shape")[0];
  if (!fixed.is_null()) {
    result.least_batch = result.most_batch = static_cast<std::size_t>(fixed.integer(1, kMostBatch));
  }
}

void read_files(const Field &root, Manifest &result) {
  const Field files = root.at("files");
  const auto known = {"model.onnx",  "calibration.json",      "reference.npz",     "labels.txt",
                      "source.onnx", "source-statistics.npz", "source-scales.json"};
  for (const char *name : known) {
    if (const auto digest = files.find(name)) result.files.emplace(name, digest->digest());
  }
  files.only(known);
  files.at("model.onnx"), files.at("reference.npz");
}

}  // namespace

std::size_t Manifest::values() const {
  const Size size = input_size();
  return static_cast<std::size_t>(channels()) * static_cast<std::size_t>(size.width) *
         static_cast<std::size_t>(size.height);
}

std::size_t Manifest::image_bytes() const {
  return values() * (format.element == CNNX_UINT8 ? 1 : sizeof(float));
}

std::vector<std::int64_t> Manifest::input_shape(std::size_t images) const {
  const auto n = static_cast<std::int64_t>(images);
  const Size size = input_size();
  if (format.layout == CNNX_NHWC) return {n, size.height, size.width, channels()};
  return {n, channels(), size.height, size.width};
}

const char *name_of(Precision precision) { return kPrecisions[static_cast<std::size_t>(precision)].first; }

Manifest read_manifest(const std::filesystem::path &bundle) {
  const std::filesystem::path file = bundle / "manifest.json";
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    refuse("not a bundle: manifest.json is missing", bundle.string(),
           "pass the folder that cnnx export wrote");
  }
  const Sealed sealed(file, bundle);
  const Field root = sealed.root();
  Manifest result;
  result.name = root.at("name").file_name();
  result.precision = choice(root.at("precision"), kPrecisions);
  result.classes = static_cast<std::size_t>(root.at("classes").integer(2, kMostClasses));
  const Field recipe = root.at("recipe");
  const Field stated = recipe.at("input");
  stated.only({"shape", "name", "format"});
  const auto format = stated.find("format");
  const bool graph_resizes = format && format->text().find(':') != std::string::npos;
  result.preprocessing = read_preprocessing(recipe.at("preprocessing"), graph_resizes);
  if (const auto pillow = root.at("versions").find("pillow")) {
    constexpr int kSinceMajor = 13;
    result.preprocessing.may_start_with_columns = std::atoi(pillow->text().c_str()) >= kSinceMajor;
  }
  const Field shape = stated.at("shape");
  if (shape.size() != 3 || shape[0].integer(1, 3) != result.channels()) {
    shape.refuse("should be [channels, height, width], with the channels of preprocessing.color");
  }
  result.crop = Size{side(shape[2]), side(shape[1])};
  check_pixels(result.crop, shape);
  result.format.color = result.preprocessing.color;
  if (format) {
    result.format = read_format(*format, result.preprocessing.color);
    check_pixels(result.input_size(), *format);
  }
  const Field inputs = root.at("inputs");
  if (inputs.size() != 1) inputs.refuse("should have one input");
  check_input(inputs[0], result);
  result.input = inputs[0].at("name").text();
  const Field output = root.at("outputs")[0];
  result.output = output.at("name").text();
  if (const Field type = output.at("type"); type.text() != "float32") {
    uncovered("is '" + shown(type.text()) + "', which this program does not cover", "float32", type);
  }
  read_batch(root, result);
  read_files(root, result);
  return result;
}

}  // namespace cnnx

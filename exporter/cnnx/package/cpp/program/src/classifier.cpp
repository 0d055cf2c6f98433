#include "classifier.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.hpp"
#include "files.hpp"
#include "logits.hpp"
#include "reference.hpp"
#include "self_test.hpp"

namespace cnnx {
namespace {

constexpr std::size_t kBatch = 32;  // more images at a time take more memory, and little less time
constexpr std::size_t kMostBytes = std::size_t{1} << 31U;

/// Class names: one per line, or the indices if the bundle has no names.
std::vector<std::string> read_labels(const std::filesystem::path &bundle, const Manifest &manifest) {
  std::vector<std::string> names;
  const auto digest = manifest.files.find("labels.txt");
  if (digest == manifest.files.end()) {
    for (std::size_t i = 0; i < manifest.classes; ++i) names.push_back(std::to_string(i));
    return names;
  }
  const std::filesystem::path file = bundle / "labels.txt";
  std::string text = read_checked(file, digest->second, bundle);
  if (!is_utf8(text) || text.find('\0') != std::string::npos) {
    refuse("labels.txt is not UTF-8 text", file.string(), kCopyAgain);
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    names.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  if (names.size() != manifest.classes) {
    refuse("labels.txt has " + std::to_string(names.size()) + " lines, but the network has " +
               std::to_string(manifest.classes) + " classes",
           file.string(), kCopyAgain);
  }
  return names;
}

Manifest checked_manifest(const std::filesystem::path &folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) {
    refuse("the folder does not exist", folder.string(), "pass the folder of a bundle");
  }
  Manifest manifest = read_manifest(folder);
  // The graph is checked where it is loaded, and only there: it can be large, and an engine does not need it.
  for (const auto &[name, digest] : manifest.files) {
    if (name != "model.onnx") read_checked(folder / name, digest, folder);
  }
  return manifest;
}

}  // namespace

Bundle::Bundle(const std::string &folder, const OpenOptions &options)
    : folder_(folder),
      manifest_(checked_manifest(folder_)),
      input_(manifest_),
      labels_(read_labels(folder_, manifest_)),
      session_(open_session(folder_, manifest_, options)),
      runtime_(session_ ? session_->runtime() : "none"),
      engine_(session_ ? session_->engine() : "") {}

cnnx_description Bundle::describe() const {
  const Size size = manifest_.input_size();
  cnnx_description result{};
  result.name = manifest_.name.c_str();
  result.precision = name_of(manifest_.precision);
  result.runtime = runtime_.c_str();
  result.engine = engine_.c_str();
  result.classes = manifest_.classes;
  result.channels = static_cast<std::size_t>(manifest_.channels());
  result.height = result.crop_height = static_cast<std::size_t>(size.height);
  result.width = result.crop_width = static_cast<std::size_t>(size.width);
  result.element = manifest_.format.element;
  result.layout = manifest_.format.layout;
  result.image_bytes = manifest_.image_bytes();
  result.least_batch = session_ ? session_->least_batch() : manifest_.least_batch;
  result.most_batch = session_ ? session_->most_batch() : manifest_.most_batch;
  return result;
}

const char *Bundle::class_name(std::size_t index) const {
  return index < labels_.size() ? labels_[index].c_str() : nullptr;
}

Pixels Bundle::pixels_of(const cnnx_image &image) const {
  if (!manifest_.format.frame) return crop(image, manifest_.preprocessing, manifest_.crop);
  const Size frame = *manifest_.format.frame;
  if (image.width != static_cast<std::size_t>(frame.width) ||
      image.height != static_cast<std::size_t>(frame.height)) {
    refuse(
        "the network takes frames of " + std::to_string(frame.width) + " x " + std::to_string(frame.height) +
            " pixels, not " + std::to_string(image.width) + " x " + std::to_string(image.height),
        {},
        "give frames of that size, or export the network with input.format = \"uint8-nhwc\" without a size");
  }
  Preprocessing as_it_is = manifest_.preprocessing;
  as_it_is.box.reset();
  return crop(image, as_it_is, frame);
}

std::vector<cnnx_guess> Bundle::classify(const cnnx_image &image, std::size_t count) {
  std::vector<std::uint8_t> input(manifest_.image_bytes());
  std::vector<float> logits(manifest_.classes);
  prepare(image, input.data());
  run(input.data(), 1, logits.data());
  return top(logits.data(), count);
}

std::vector<cnnx_guess> Bundle::top(const float *logits, std::size_t count) const {
  const std::vector<double> exact(logits, logits + manifest_.classes);
  const auto logarithms = log_softmax(exact.data(), exact.size());
  // One logit that is not finite leaves no probability with a meaning.
  const bool is_finite =
      std::all_of(exact.begin(), exact.end(), [](double each) { return std::isfinite(each); });
  std::vector<cnnx_guess> result;
  for (const std::size_t index : cnnx::top(logits, manifest_.classes, count)) {
    result.push_back({index, is_finite ? std::exp(logarithms[index]) : std::nan(""), class_name(index)});
  }
  return result;
}

void Bundle::run(const void *input, std::size_t images, float *logits) {
  const std::lock_guard<std::mutex> guard(running_);
  Session &session = this->session();
  const std::size_t size = std::max(session.least_batch(), std::min(session.most_batch(), kBatch));
  const auto *bytes = static_cast<const std::uint8_t *>(input);
  for (std::size_t start = 0; start < images; start += size) {
    const std::size_t count = std::min(size, images - start);
    const std::uint8_t *first = bytes + start * manifest_.image_bytes();
    float *results = logits + start * manifest_.classes;
    if (count < session.least_batch()) {
      run_padded(first, count, session.least_batch(), results);
    } else {
      session.run(first, count, results);
    }
  }
}

void Bundle::run_padded(const std::uint8_t *input, std::size_t images, std::size_t size, float *logits) {
  const std::size_t bytes = manifest_.image_bytes();
  if (size > kMostBytes / std::max(bytes, manifest_.classes * sizeof(float))) {
    lacks("a batch of " + std::to_string(size) + " images would need too much memory", folder_.string(),
          "export the network with a smaller batch");
  }
  std::vector<std::uint8_t> padded(size * bytes);
  std::memcpy(padded.data(), input, images * bytes);
  for (std::size_t i = images; i < size; ++i) {
    std::memcpy(&padded[i * bytes], input + (images - 1) * bytes, bytes);
  }
  std::vector<float> results(size * manifest_.classes);
  session().run(padded.data(), size, results.data());
  std::copy_n(results.begin(), images * manifest_.classes, logits);
}

void Bundle::enqueue(const void *device_input, std::size_t images, float *device_logits, void *stream) {
  const std::lock_guard<std::mutex> guard(running_);
  Session &session = this->session();
  if (images < session.least_batch() || images > session.most_batch()) {
    misuse(std::to_string(images) + " images are not one batch of this engine",
           "pass " + std::to_string(session.least_batch()) + " to " + std::to_string(session.most_batch()));
  }
  session.enqueue(device_input, images, device_logits, stream);
}

cnnx_self_test Bundle::self_test() {
  const std::filesystem::path file = folder_ / "reference.npz";
  const Reference reference =
      read_reference(read_checked(file, manifest_.files.at("reference.npz"), folder_), manifest_, file);
  const std::size_t crop_bytes = reference.crops.size() / reference.images;
  std::vector<float> logits(reference.images * manifest_.classes);
  // A few at a time: prepared frames can be much larger than crops.
  std::vector<std::uint8_t> input(std::min(kBatch, reference.images) * manifest_.image_bytes());
  for (std::size_t start = 0; start < reference.images; start += kBatch) {
    const std::size_t count = std::min(kBatch, reference.images - start);
    for (std::size_t i = 0; i < count; ++i) {
      const auto frame = input_.frame_of(&reference.crops[(start + i) * crop_bytes]);
      input_.write(frame.data(), &input[i * manifest_.image_bytes()]);
    }
    run(input.data(), count, &logits[start * manifest_.classes]);
  }
  return judge(reference, logits, manifest_);
}

Session &Bundle::session() const {
  if (!session_) misuse("the bundle was opened without a runtime", "open it with the runtime auto");
  return *session_;
}

}  // namespace cnnx

// A bundle that was opened: its manifest, its class names, and what runs its network.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cnnx.h"
#include "crop.hpp"
#include "manifest.hpp"
#include "network_input.hpp"
#include "session.hpp"

namespace cnnx {

class Bundle {
 public:
  Bundle(const std::string &folder, const OpenOptions &options);

  cnnx_description describe() const;
  const char *class_name(std::size_t index) const;

  /// The pixels of an image that the network sees. A graph that takes frames takes them as they are.
  Pixels pixels_of(const cnnx_image &image) const;
  void prepare(const cnnx_image &image, void *input) const {
    input_.write(pixels_of(image).values.data(), input);
  }

  std::vector<cnnx_guess> classify(const cnnx_image &image, std::size_t count);
  std::vector<cnnx_guess> top(const float *logits, std::size_t count) const;

  /// Runs any number of images, in batches; the last is padded with copies of its last image if need be.
  void run(const void *input, std::size_t images, float *logits);
  void enqueue(const void *device_input, std::size_t images, float *device_logits, void *stream);

  cnnx_self_test self_test();

 private:
  Session &session() const;
  void run_padded(const std::uint8_t *input, std::size_t images, std::size_t size, float *logits);

  std::filesystem::path folder_;
  Manifest manifest_;
  NetworkInput input_;
  std::vector<std::string> labels_;
  std::unique_ptr<Session> session_;
  std::string runtime_, engine_;
  std::mutex running_;
};

}  // namespace cnnx

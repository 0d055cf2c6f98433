// What runs a network: a TensorRT engine, or the graph on ONNX Runtime.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

#include "manifest.hpp"

namespace cnnx {

class Session {
 public:
  Session() = default;
  Session(const Session &) = delete;
  Session &operator=(const Session &) = delete;
  virtual ~Session() = default;

  virtual std::string runtime() const = 0;  ///< such as "tensorrt 10.3.0"
  virtual std::string engine() const { return ""; }
  virtual std::size_t least_batch() const = 0;
  virtual std::size_t most_batch() const = 0;

  /// Runs one batch in host memory and waits for it.
  virtual void run(const void *input, std::size_t images, float *logits) = 0;

  /// Starts one batch in device memory on a stream.
  virtual void enqueue(const void *device_input, std::size_t images, float *device_logits, void *stream);
};

struct OpenOptions {
  std::string runtime, engine, library;
  int device = 0;
  int threads = 0;
};

/// Opens the runtime that the options name. For "auto", TensorRT if the bundle has an engine for it, else
/// ONNX Runtime. None for "none".
std::unique_ptr<Session> open_session(const std::filesystem::path &bundle, const Manifest &manifest,
                                      const OpenOptions &options);

/// The graph on ONNX Runtime, whose library is loaded now.
std::unique_ptr<Session> open_onnxruntime(const std::filesystem::path &bundle, const Manifest &manifest,
                                          const OpenOptions &options);

/// An engine on TensorRT; none if the bundle has no engine, or, for "auto", if there is no GPU.
std::unique_ptr<Session> open_tensorrt(const std::filesystem::path &bundle, const Manifest &manifest,
                                       const OpenOptions &options);

}  // namespace cnnx

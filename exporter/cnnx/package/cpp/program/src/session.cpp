#include "session.hpp"

#include "error.hpp"
#include "files.hpp"

namespace cnnx {

void Session::enqueue(const void * /*device_input*/, std::size_t /*images*/, float * /*device_logits*/,
                      void * /*stream*/) {
  misuse(runtime() + " does not run on buffers of the caller in device memory",
         "call cnnx_run, or open the bundle with TensorRT");
}

#ifndef CNNX_WITH_TENSORRT
std::unique_ptr<Session> open_tensorrt(const std::filesystem::path & /*bundle*/,
                                       const Manifest & /*manifest*/, const OpenOptions &options) {
  if (options.runtime == "auto" && options.engine.empty()) return nullptr;
  lacks("this library was built without TensorRT", {},
        "install TensorRT's headers and build it again: see README.md");
}
#endif

std::unique_ptr<Session> open_session(const std::filesystem::path &bundle, const Manifest &manifest,
                                      const OpenOptions &options) {
  const std::string &runtime = options.runtime;
  if (runtime == "none") return nullptr;
  if (runtime != "auto" && runtime != "tensorrt" && runtime != "ort") {
    misuse("unknown runtime '" + shown(runtime) + "'", "choose auto, tensorrt, ort or none");
  }
  if (runtime == "ort" && !options.engine.empty()) {
    misuse("ONNX Runtime runs no engines", "drop the engine, or choose tensorrt");
  }
  if (runtime != "ort") {
    if (auto session = open_tensorrt(bundle, manifest, options)) return session;
    if (runtime == "tensorrt") {
      misuse("the bundle has no TensorRT engine",
             "build one: cnnx build " + bundle.string() + " --target tensorrt");
    }
  }
  return open_onnxruntime(bundle, manifest, options);
}

}  // namespace cnnx

// Only calls that TensorRT 10 and 11 share.
#include <NvInfer.h>
#include <cuda_runtime_api.h>
#include <sys/utsname.h>

#include <mutex>
#include <vector>

#include "engine.hpp"
#include "error.hpp"
#include "files.hpp"
#include "session.hpp"

#if NV_TENSORRT_MAJOR < 10
#error "TensorRT 10 or newer is needed; -D CNNX_TENSORRT=OFF builds without it"
#endif

namespace cnnx {
namespace {

void check(cudaError_t error, const char *call) {
  if (error == cudaSuccess) return;
  lacks(std::string(call) + " fails: " + cudaGetErrorString(error), {},
        "check the driver and the free memory of the GPU: nvidia-smi");
}

/// Makes a device current, and the caller's again at the end.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
  }
  CurrentDevice(const CurrentDevice &) = delete;
  CurrentDevice &operator=(const CurrentDevice &) = delete;
  ~CurrentDevice() { cudaSetDevice(before_); }

 private:
  int before_ = 0;
};

/// Device memory that grows as needed.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer &&other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer &operator=(DeviceBuffer &&) = delete;
  DeviceBuffer(const DeviceBuffer &) = delete;
  DeviceBuffer &operator=(const DeviceBuffer &) = delete;
  ~DeviceBuffer() { cudaFree(data_); }

  void *of(std::size_t bytes) {
    if (bytes > bytes_) {
      cudaFree(std::exchange(data_, nullptr));
      bytes_ = 0;
      check(cudaMalloc(&data_, bytes), "cudaMalloc");
      bytes_ = bytes;
    }
    return data_;
  }

 private:
  void *data_ = nullptr;
  std::size_t bytes_ = 0;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Waits for a stream at the end, also after a failure: until then it may use the caller's memory.
class Finish {
 public:
  explicit Finish(cudaStream_t stream) : stream_(stream) {}
  Finish(const Finish &) = delete;
  Finish &operator=(const Finish &) = delete;
  ~Finish() { cudaStreamSynchronize(stream_); }

 private:
  cudaStream_t stream_;
};

/// Keeps the last error: TensorRT's calls only return that they failed.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char *message) noexcept override {
    if (severity > Severity::kERROR) return;
    const std::lock_guard<std::mutex> guard(mutex_);
    try {
      last_ = message;
    } catch (...) {  // out of memory: the message is lost
    }
  }

  std::string last() {
    const std::lock_guard<std::mutex> guard(mutex_);
    return last_.empty() ? "no reason was given" : last_;
  }

 private:
  std::mutex mutex_;
  std::string last_;
};

std::size_t size_of(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
    case nvinfer1::DataType::kINT32:
      return 4;
    case nvinfer1::DataType::kHALF:
    case nvinfer1::DataType::kBF16:
      return 2;
    default:
      return 8;  // not less than any other type
  }
}

/// Values of one image in a tensor whose first axis is the batch; 0 if a length is not known.
std::size_t values_of(const nvinfer1::Dims &shape) {
  std::size_t values = shape.nbDims < 1 ? 0 : 1;
  for (int axis = 1; axis < shape.nbDims; ++axis) {
    values *= shape.d[axis] < 0 ? 0 : static_cast<std::size_t>(shape.d[axis]);
  }
  return values;
}

/// Release of the library that is linked.
Release linked_release() {
  const int version = getInferLibVersion();  // 100300 is 10.3.0
  return {version / 10000, version / 100 % 100, version % 100};
}

class TensorRtSession final : public Session {
 public:
  TensorRtSession(const std::filesystem::path &bundle, const Manifest &manifest, Engine engine, int device)
      : manifest_(manifest),
        description_(std::move(engine)),
        where_(description_.path(bundle).string()),
        device_(device) {
    const CurrentDevice current(device_);
    load(bundle);
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
      const char *name = engine_->getIOTensorName(i);
      if (engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT) {
        check_input(name);
      } else {
        check_output(name);
      }
    }
    if (least_ == 0) unfit("it has no input '" + manifest_.input + "'");
    if (!has_output_) unfit("it has no output '" + manifest_.output + "'");
    stream_ = std::make_unique<Stream>();
  }

  TensorRtSession(const TensorRtSession &) = delete;
  TensorRtSession &operator=(const TensorRtSession &) = delete;
  ~TensorRtSession() override {
    int before = device_;
    cudaGetDevice(&before);
    cudaSetDevice(device_);
    context_.reset(), engine_.reset(), runtime_.reset(), stream_.reset();
    cudaSetDevice(before);
  }

  std::string runtime() const override { return "tensorrt " + text_of(linked_release()); }
  std::string engine() const override { return description_.identity; }
  std::size_t least_batch() const override { return least_; }
  std::size_t most_batch() const override { return most_; }

  void run(const void *input, std::size_t images, float *logits) override {
    const CurrentDevice current(device_);
    const std::size_t in_bytes = images * manifest_.image_bytes();
    const std::size_t out_bytes = images * manifest_.classes * sizeof(float);
    void *device_input = input_.of(in_bytes);
    auto *device_logits = static_cast<float *>(logits_.of(out_bytes));
    const Finish finish(stream_->get());
    check(cudaMemcpyAsync(device_input, input, in_bytes, cudaMemcpyHostToDevice, stream_->get()),
          "cudaMemcpyAsync");
    start(device_input, images, device_logits, stream_->get());
    check(cudaMemcpyAsync(logits, device_logits, out_bytes, cudaMemcpyDeviceToHost, stream_->get()),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_->get()), "cudaStreamSynchronize");
  }

  void enqueue(const void *device_input, std::size_t images, float *device_logits, void *stream) override {
    const CurrentDevice current(device_);
    start(device_input, images, device_logits, static_cast<cudaStream_t>(stream));
  }

 private:
  struct Extra {
    std::string name;
    std::size_t bytes;  // of one image
    DeviceBuffer buffer;
  };

  [[noreturn]] void unfit(const std::string &what) const {
    refuse("the engine does not fit the bundle: " + what, where_, kCopyAgain);
  }

  void load(const std::filesystem::path &bundle) {
    const std::string plan = read_checked(description_.path(bundle), description_.digest, bundle);
    check_plan_header(plan, description_, bundle);
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (!runtime_) {
      lacks("TensorRT cannot be started: " + log_.last(), {},
            "check the driver and the installation of TensorRT");
    }
    runtime_->setEngineHostCodeAllowed(description_.for_newer_releases);
    if (description_.dla_core) runtime_->setDLACore(*description_.dla_core);
    engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine_) {
      refuse("TensorRT refuses the engine: " + log_.last(), where_,
             "build it on this machine: cnnx build " + bundle.string() + " --target tensorrt");
    }
    context_.reset(engine_->createExecutionContext());
    if (!context_) {
      lacks("there is not enough memory to run the engine: " + log_.last(), where_,
            "close other programs that use the GPU");
    }
  }

  void check_input(const char *name) {
    if (manifest_.input != name) {
      unfit("it has an input '" + shown(name) + "', which the bundle does not state");
    }
    const bool is_raw = manifest_.format.element == CNNX_UINT8;
    if (engine_->getTensorDataType(name) !=
        (is_raw ? nvinfer1::DataType::kUINT8 : nvinfer1::DataType::kFLOAT)) {
      unfit("its input has another type");
    }
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    const auto expected = manifest_.input_shape(1);
    bool fits = shape.nbDims == static_cast<int>(expected.size());
    for (int axis = 1; fits && axis < shape.nbDims; ++axis) {
      fits = shape.d[axis] == expected[static_cast<std::size_t>(axis)];
    }
    if (!fits) unfit("its input has another shape");
    is_dynamic_ = shape.d[0] < 0;
    const auto batch = [&](nvinfer1::OptProfileSelector which) {
      const auto length = is_dynamic_ ? engine_->getProfileShape(name, 0, which).d[0] : shape.d[0];
      if (length < 1) unfit("its batch is not known");
      return static_cast<std::size_t>(length);
    };
    least_ = batch(nvinfer1::OptProfileSelector::kMIN);
    most_ = batch(nvinfer1::OptProfileSelector::kMAX);
    if (least_ > most_) unfit("its batch is not known");
  }

  void check_output(const char *name) {
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    const std::size_t values = values_of(shape);
    if (values == 0) unfit("its output '" + shown(name) + "' has a shape that depends on the data");
    if (manifest_.output == name) {
      if (engine_->getTensorDataType(name) != nvinfer1::DataType::kFLOAT || values != manifest_.classes) {
        unfit("its logits have another type, or another number of classes");
      }
      has_output_ = true;
    } else {
      extras_.push_back({name, values * size_of(engine_->getTensorDataType(name)), {}});
    }
  }

  void start(const void *device_input, std::size_t images, float *device_logits, cudaStream_t stream) {
    const char *input = manifest_.input.c_str();
    bool done = true;
    if (is_dynamic_) {
      const auto lengths = manifest_.input_shape(images);
      nvinfer1::Dims shape{};
      shape.nbDims = static_cast<int>(lengths.size());
      for (std::size_t axis = 0; axis < lengths.size(); ++axis) shape.d[axis] = lengths[axis];
      done = context_->setInputShape(input, shape);
    }
    done = done && context_->setInputTensorAddress(input, device_input);
    done = done && context_->setTensorAddress(manifest_.output.c_str(), device_logits);
    for (Extra &extra : extras_) {
      done = done && context_->setTensorAddress(extra.name.c_str(), extra.buffer.of(most_ * extra.bytes));
    }
    if (!done || !context_->enqueueV3(stream)) {
      lacks("TensorRT fails to run the engine: " + log_.last(), where_,
            "check the driver and the free memory of the GPU: nvidia-smi");
    }
  }

  const Manifest &manifest_;
  Engine description_;
  std::string where_;
  int device_;
  Log log_;
  // In the order that they need each other: destroyed from the last to the first.
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::unique_ptr<Stream> stream_;
  DeviceBuffer input_, logits_;
  std::vector<Extra> extras_;  // outputs that are not the logits
  bool is_dynamic_ = false, has_output_ = false;
  std::size_t least_ = 0, most_ = 0;
};

Machine this_machine(int device) {
  Machine machine;
  machine.release = linked_release();
  int major = 0, minor = 0;
  // Attributes, not properties: the structure of those differs between releases of CUDA.
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  machine.capability = 10 * major + minor;
  utsname name{};
  if (uname(&name) == 0) machine.cpu = name.machine;
  return machine;
}

/// Why CUDA cannot be used; empty if it can.
std::string missing_cuda(int device) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  return device >= 0 && device < count ? "" : "there is no CUDA device " + std::to_string(device);
}

}  // namespace

std::unique_ptr<Session> open_tensorrt(const std::filesystem::path &bundle, const Manifest &manifest,
                                       const OpenOptions &options) {
  if (const std::string reason = missing_cuda(options.device); !reason.empty()) {
    if (options.runtime == "auto" && options.engine.empty()) return nullptr;
    lacks("TensorRT cannot be used: " + reason, {},
          "check the driver with nvidia-smi, or choose the runtime ort");
  }
  auto engine = choose_engine(bundle, manifest, options.engine, this_machine(options.device));
  if (!engine) return nullptr;
  return std::make_unique<TensorRtSession>(bundle, manifest, std::move(*engine), options.device);
}

}  // namespace cnnx

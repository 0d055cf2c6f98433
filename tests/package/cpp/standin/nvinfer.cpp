// A plan is 28 bytes of header, lines of text, an empty line, and float32 weights:
//
//     input NAME float|uint8 RANK LENGTH...
//     output NAME float|half RANK LENGTH...
//     batch SMALLEST LARGEST            (for a first length of -1)
//     linear CLASSES VALUES             logits = weights (CLASSES, VALUES) x + bias (CLASSES)
#include "NvInfer.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::ILogger;
using nvinfer1::TensorIOMode;

constexpr std::size_t kHeader = 28;

struct Tensor {
  std::string name;
  TensorIOMode mode;
  DataType type;
  Dims shape;
};

std::size_t volume(const Dims &shape) {
  std::size_t values = 1;
  for (int i = 0; i < shape.nbDims; ++i) values *= static_cast<std::size_t>(shape.d[i]);
  return values;
}

std::size_t width(DataType type) { return type == DataType::kUINT8 ? 1 : type == DataType::kHALF ? 2 : 4; }

struct Network {
  std::vector<Tensor> tensors;
  std::int64_t smallest = 0, largest = 0;
  std::size_t classes = 0, values = 0;
  std::vector<float> weights, bias;

  const Tensor *find(const char *name) const {
    for (const Tensor &each : tensors) {
      if (each.name == name) return &each;
    }
    return nullptr;
  }
};

std::shared_ptr<const Network> parse(const char *plan, std::size_t size) {
  if (size < kHeader || std::memcmp(plan, "ftrt", 4) != 0) return nullptr;
  const std::string text(plan + kHeader, size - kHeader);
  const std::size_t end = text.find("\n\n");
  if (end == std::string::npos) return nullptr;
  std::istringstream lines(text.substr(0, end));
  auto network = std::make_shared<Network>();
  std::string word;
  while (lines >> word) {
    if (word == "batch") {
      lines >> network->smallest >> network->largest;
    } else if (word == "linear") {
      lines >> network->classes >> network->values;
    } else {
      Tensor tensor{};
      std::string type;
      lines >> tensor.name >> type >> tensor.shape.nbDims;
      tensor.mode = word == "input" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
      tensor.type = type == "uint8" ? DataType::kUINT8 : type == "half" ? DataType::kHALF : DataType::kFLOAT;
      for (int i = 0; i < tensor.shape.nbDims; ++i) lines >> tensor.shape.d[i];
      network->tensors.push_back(tensor);
    }
  }
  network->weights.resize(network->classes * network->values);
  network->bias.resize(network->classes);
  const char *data = text.data() + end + 2;
  if (text.size() - end - 2 != 4 * (network->weights.size() + network->bias.size())) return nullptr;
  std::memcpy(network->weights.data(), data, 4 * network->weights.size());
  std::memcpy(network->bias.data(), data + 4 * network->weights.size(), 4 * network->bias.size());
  return network;
}

/// Counts what was made of an object, which must be destroyed before it.
struct Children {
  int count = 0;
  ~Children() {
    if (count == 0) return;
    std::fputs("destroyed before what was made of it\n", stderr);
    std::abort();
  }
};

class Context final : public nvinfer1::IExecutionContext {
 public:
  Context(std::shared_ptr<const Network> network, ILogger &logger, Children &siblings)
      : network_(std::move(network)), logger_(logger), siblings_(siblings) {
    ++siblings_.count;
  }
  ~Context() noexcept override { --siblings_.count; }

  bool setInputShape(char const *name, Dims const &dims) noexcept override {
    const Tensor *tensor = network_->find(name);
    if (tensor == nullptr || tensor->shape.nbDims != dims.nbDims)
      return fails("setInputShape: no such input");
    if (dims.d[0] < network_->smallest || dims.d[0] > network_->largest)
      return fails("setInputShape: outside the profile");
    for (int i = 1; i < dims.nbDims; ++i) {
      if (dims.d[i] != tensor->shape.d[i]) return fails("setInputShape: another shape");
    }
    batch_ = dims.d[0];
    return true;
  }

  bool setInputTensorAddress(char const *name, void const *data) noexcept override {
    addresses_[name] = const_cast<void *>(data);
    return network_->find(name) != nullptr;
  }

  bool setTensorAddress(char const *name, void *data) noexcept override {
    return setInputTensorAddress(name, data);
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (standin_fails("enqueueV3")) return fails("enqueueV3: the stand-in was asked to fail");
    const Tensor *input = nullptr;
    std::map<std::string, void *> memory;
    for (const Tensor &tensor : network_->tensors) {
      if (tensor.mode == TensorIOMode::kINPUT) input = &tensor;
    }
    const std::int64_t batch = input->shape.d[0] < 0 ? batch_ : input->shape.d[0];
    if (batch < 1) return fails("enqueueV3: the shape of the input was not set");
    for (const Tensor &tensor : network_->tensors) {
      Dims shape = tensor.shape;
      shape.d[0] = batch;
      memory[tensor.name] = standin_memory(addresses_[tensor.name], volume(shape) * width(tensor.type));
      if (memory[tensor.name] == nullptr)
        return fails("enqueueV3: a tensor has no address in device memory, or not enough");
    }
    standin_later(stream, [network = network_, input = *input, memory, batch]() mutable {
      run(*network, input, memory, batch);
    });
    return true;
  }

 private:
  static void run(const Network &network, const Tensor &input, std::map<std::string, void *> &memory,
                  std::int64_t batch) {
    const void *x = memory[input.name];
    auto *logits = static_cast<float *>(memory["logits"]);
    for (std::size_t n = 0; n < static_cast<std::size_t>(batch); ++n) {
      for (std::size_t c = 0; c < network.classes; ++c) {
        double sum = network.bias[c];
        for (std::size_t i = 0; i < network.values; ++i) {
          const std::size_t at = n * network.values + i;
          const double value = input.type == DataType::kUINT8 ? static_cast<const std::uint8_t *>(x)[at]
                                                              : double{static_cast<const float *>(x)[at]};
          sum += network.weights[c * network.values + i] * value;
        }
        logits[n * network.classes + c] = static_cast<float>(sum);
      }
    }
  }

  bool fails(const char *message) noexcept {
    logger_.log(ILogger::Severity::kERROR, message);
    return false;
  }

  std::shared_ptr<const Network> network_;
  ILogger &logger_;
  Children &siblings_;
  std::map<std::string, void *> addresses_;
  std::int64_t batch_ = 0;
};

class Engine final : public nvinfer1::ICudaEngine {
 public:
  Engine(std::shared_ptr<const Network> network, ILogger &logger, Children &siblings)
      : network_(std::move(network)), logger_(logger), siblings_(siblings) {
    ++siblings_.count;
  }
  ~Engine() noexcept override { --siblings_.count; }

  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(network_->tensors.size()); }
  char const *getIOTensorName(int32_t index) const noexcept override {
    return network_->tensors.at(static_cast<std::size_t>(index)).name.c_str();
  }
  TensorIOMode getTensorIOMode(char const *name) const noexcept override {
    return network_->find(name)->mode;
  }
  DataType getTensorDataType(char const *name) const noexcept override { return network_->find(name)->type; }
  Dims getTensorShape(char const *name) const noexcept override { return network_->find(name)->shape; }
  Dims getProfileShape(char const *name, int32_t /*index*/,
                       nvinfer1::OptProfileSelector select) const noexcept override {
    Dims shape = network_->find(name)->shape;
    shape.d[0] = select == nvinfer1::OptProfileSelector::kMIN ? network_->smallest : network_->largest;
    return shape;
  }
  nvinfer1::IExecutionContext *createExecutionContext() noexcept override {
    if (standin_fails("createExecutionContext")) {
      logger_.log(ILogger::Severity::kERROR, "createExecutionContext: out of memory");
      return nullptr;
    }
    return new Context(network_, logger_, contexts_);
  }

 private:
  std::shared_ptr<const Network> network_;
  ILogger &logger_;
  Children &siblings_;
  Children contexts_;
};

class Runtime final : public nvinfer1::IRuntime {
 public:
  explicit Runtime(ILogger &logger) : logger_(logger) {}
  void setDLACore(int32_t core) noexcept override {
    logger_.log(ILogger::Severity::kINFO, core < 0 ? "no DLA" : "DLA");
  }
  void setEngineHostCodeAllowed(bool /*allowed*/) noexcept override {}
  nvinfer1::ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept override {
    auto network = parse(static_cast<const char *>(blob), size);
    if (network == nullptr || standin_fails("deserializeCudaEngine")) {
      logger_.log(ILogger::Severity::kWARNING, "this is not the reason");
      logger_.log(ILogger::Severity::kERROR, "deserializeCudaEngine: the plan is not one");
      return nullptr;
    }
    return new Engine(network, logger_, engines_);
  }

 private:
  ILogger &logger_;
  Children engines_;
};

}  // namespace

nvinfer1::IRuntime *nvinfer1::createInferRuntime(ILogger &logger) noexcept {
  return standin_fails("createInferRuntime") ? nullptr : new Runtime(logger);
}

int32_t getInferLibVersion() noexcept {
  int major = 10, minor = 3, patch = 0;
  if (const char *stated = std::getenv("CNNX_STANDIN_VERSION"))
    std::sscanf(stated, "%d.%d.%d", &major, &minor, &patch);
  return major * 10000 + minor * 100 + patch;
}

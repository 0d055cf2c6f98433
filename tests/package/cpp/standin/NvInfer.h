// Stand-in for TensorRT: the classes and functions that cnnx calls, with NVIDIA's names and meanings.
//
// A "plan" is a header as TensorRT writes it, lines that describe tensors, and the weights of one linear
// layer (see nvinfer.cpp). CNNX_STANDIN_FAIL names a call to fail, CNNX_STANDIN_VERSION the release.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 10

namespace nvinfer1 {

enum class DataType : int32_t {
  kFLOAT = 0,
  kHALF = 1,
  kINT8 = 2,
  kINT32 = 3,
  kBOOL = 4,
  kUINT8 = 5,
  kFP8 = 6,
  kBF16 = 7,
  kINT64 = 8
};
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class OptProfileSelector : int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };

struct Dims {
  int32_t nbDims;
  int64_t d[8];
};

class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, char const *msg) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() noexcept = default;
  virtual bool setInputShape(char const *tensorName, Dims const &dims) noexcept = 0;
  virtual bool setInputTensorAddress(char const *tensorName, void const *data) noexcept = 0;
  virtual bool setTensorAddress(char const *tensorName, void *data) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
 public:
  virtual ~ICudaEngine() noexcept = default;
  virtual int32_t getNbIOTensors() const noexcept = 0;
  virtual char const *getIOTensorName(int32_t index) const noexcept = 0;
  virtual TensorIOMode getTensorIOMode(char const *tensorName) const noexcept = 0;
  virtual DataType getTensorDataType(char const *tensorName) const noexcept = 0;
  virtual Dims getTensorShape(char const *tensorName) const noexcept = 0;
  virtual Dims getProfileShape(char const *tensorName, int32_t profileIndex,
                               OptProfileSelector select) const noexcept = 0;
  virtual IExecutionContext *createExecutionContext() noexcept = 0;
};

class IRuntime {
 public:
  virtual ~IRuntime() noexcept = default;
  virtual void setDLACore(int32_t dlaCore) noexcept = 0;
  virtual void setEngineHostCodeAllowed(bool allowed) noexcept = 0;
  virtual ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept = 0;
};

IRuntime *createInferRuntime(ILogger &logger) noexcept;

}  // namespace nvinfer1

extern "C" int32_t getInferLibVersion() noexcept;

#include "cuda_runtime_api.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

// No address of a process has this bit: following a device pointer ends the program.
constexpr std::uintptr_t kDevice = std::uintptr_t{1} << 62U;

std::mutex mutex;
std::map<std::uintptr_t, std::size_t> allocations;
int current = 0;

std::string setting(const char *name) {
  const char *value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

struct CUstream_st {
  std::vector<std::function<void()>> work;
};

bool standin_fails(const char *call) { return setting("CNNX_STANDIN_FAIL") == call; }

void standin_later(cudaStream_t stream, std::function<void()> work) {
  stream->work.push_back(std::move(work));
}

void *standin_memory(const void *pointer, size_t bytes) {
  const std::lock_guard<std::mutex> guard(mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return nullptr;
  const auto &[start, size] = *std::prev(after);
  if (address + bytes > start + size) return nullptr;
  return reinterpret_cast<void *>(address & ~kDevice);
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = 2;
  return standin_fails("cudaGetDeviceCount") ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  *device = current;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  current = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int /*device*/) {
  const std::string stated = setting("CNNX_STANDIN_SM");
  const int sm = stated.empty() ? 87 : std::atoi(stated.c_str());
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? sm / 10 : sm % 10;
  return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorNoDevice           ? "no CUDA-capable device is detected"
         : error == cudaErrorMemoryAllocation ? "out of memory"
                                              : "invalid argument";
}

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
  if (standin_fails("cudaMalloc")) return cudaErrorMemoryAllocation;
  void *memory = std::malloc(bytes);
  if (memory == nullptr) return cudaErrorMemoryAllocation;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory) | kDevice;
  const std::lock_guard<std::mutex> guard(mutex);
  allocations[address] = bytes;
  *pointer = reinterpret_cast<void *>(address);
  return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
  if (pointer == nullptr) return cudaSuccess;
  const std::lock_guard<std::mutex> guard(mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (allocations.erase(address) == 0) std::abort();
  std::free(reinterpret_cast<void *>(address & ~kDevice));
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const bool is_upload = kind == cudaMemcpyHostToDevice;
  void *device = standin_memory(is_upload ? to : from, bytes);
  if (device == nullptr) return cudaErrorInvalidValue;
  standin_later(stream, [=] { std::memcpy(is_upload ? device : to, is_upload ? from : device, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned /*flags*/) {
  if (standin_fails("cudaStreamCreateWithFlags")) return cudaErrorMemoryAllocation;
  *stream = new CUstream_st;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  cudaStreamSynchronize(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  for (const auto &work : stream->work) work();
  stream->work.clear();
  return standin_fails("cudaStreamSynchronize") ? cudaErrorInvalidValue : cudaSuccess;
}

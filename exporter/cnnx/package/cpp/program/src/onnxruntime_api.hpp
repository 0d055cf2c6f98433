// The part of ONNX Runtime's C API that is used, declared by position: its table of functions only grows at
// its end, so these positions hold for every release (API version 8 and later are accepted). In cnnx's
// repository, tools/check/ort_api.py compares them with the published header, onnxruntime_c_api.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnx::ort {

struct Env;
struct Status;
struct MemoryInfo;
struct Session;
struct Value;
struct RunOptions;
struct SessionOptions;

constexpr std::uint32_t kVersion = 8;  // the oldest with all of these

enum LoggingLevel { kFatal = 4 };
enum ElementType { kFloat = 1, kUint8 = 2 };
enum AllocatorType { kArenaAllocator = 1 };
enum MemoryType { kDefaultMemory = 0 };

/// What the library exports as OrtGetApiBase.
struct ApiBase {
  const void *(*get_api)(std::uint32_t version);
  const char *(*version)();
};
using GetApiBase = const ApiBase *(*)();

/// A function at a position of the table.
template <std::size_t Position, typename Function>
struct Entry;

template <std::size_t Position, typename Result, typename... Arguments>
struct Entry<Position, Result(Arguments...)> {
  static constexpr std::size_t kPosition = Position;
  using Pointer = Result (*)(Arguments...);
};

using GetErrorMessage = Entry<2, const char *(const Status *)>;
using CreateEnv = Entry<3, Status *(LoggingLevel, const char *name, Env **)>;
using CreateSessionFromArray =
    Entry<8, Status *(const Env *, const void *model, std::size_t size, const SessionOptions *, Session **)>;
using Run = Entry<9, Status *(Session *, const RunOptions *, const char *const *input_names,
                              const Value *const *inputs, std::size_t input_count,
                              const char *const *output_names, std::size_t output_count, Value **outputs)>;
using CreateSessionOptions = Entry<10, Status *(SessionOptions **)>;
using SetIntraOpNumThreads = Entry<24, Status *(SessionOptions *, int threads)>;
using CreateTensorWithDataAsOrtValue =
    Entry<49, Status *(const MemoryInfo *, void *data, std::size_t bytes, const std::int64_t *shape,
                       std::size_t rank, ElementType, Value **)>;
using CreateCpuMemoryInfo = Entry<69, Status *(AllocatorType, MemoryType, MemoryInfo **)>;
using ReleaseEnv = Entry<92, void(Env *)>;
using ReleaseStatus = Entry<93, void(Status *)>;
using ReleaseMemoryInfo = Entry<94, void(MemoryInfo *)>;
using ReleaseSession = Entry<95, void(Session *)>;
using ReleaseValue = Entry<96, void(Value *)>;
using ReleaseSessionOptions = Entry<100, void(SessionOptions *)>;
using AddSessionConfigEntry = Entry<130, Status *(SessionOptions *, const char *key, const char *value)>;

}  // namespace cnnx::ort

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "error.hpp"
#include "files.hpp"
#include "onnxruntime_api.hpp"
#include "session.hpp"

namespace cnnx {
namespace {

/// The loaded library. It is never unloaded, as its thread pools may outlive a session.
class Library {
 public:
  explicit Library(const std::string &path) {
    void *handle = nullptr;
    // From 1.29, it reports models and machines to Microsoft unless this is set before it is loaded.
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    std::string reason;
    for (const std::string &name : candidates(path)) {
      handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
      if (handle != nullptr) break;
      const char *fault = dlerror();
      if (reason.empty() && fault != nullptr) reason = fault;
    }
    if (handle == nullptr) {
      lacks("ONNX Runtime's library cannot be loaded: " + reason, {},
            "set CNNX_ONNXRUNTIME to its path, such as that of libonnxruntime.so in the Python package "
            "onnxruntime");
    }
    const auto get_base = reinterpret_cast<ort::GetApiBase>(dlsym(handle, "OrtGetApiBase"));
    const ort::ApiBase *base = get_base == nullptr ? nullptr : get_base();
    table_ = base == nullptr ? nullptr : static_cast<const Function *>(base->get_api(ort::kVersion));
    if (table_ == nullptr) {
      lacks("the library is not ONNX Runtime, or does not offer version " + std::to_string(ort::kVersion) +
                " of its C API",
            path, "use ONNX Runtime 1.8 or newer");
    }
    version_ = base->version();
  }

  const std::string &version() const { return version_; }

  template <typename Entry, typename... Arguments>
  auto call(Arguments... arguments) const {
    return reinterpret_cast<typename Entry::Pointer>(table_[Entry::kPosition])(arguments...);
  }

  /// The message of a failed call, or "" of one that did not fail.
  std::string message(ort::Status *status) const {
    if (status == nullptr) return "";
    const std::string text = call<ort::GetErrorMessage>(static_cast<const ort::Status *>(status));
    call<ort::ReleaseStatus>(status);
    return text.empty() ? "no reason was given" : text;
  }

  /// A call that only fails for lack of memory or threads.
  void expect(ort::Status *status) const {
    if (const std::string fault = message(status); !fault.empty()) {
      lacks("ONNX Runtime fails: " + fault, {}, "free memory and try again");
    }
  }

 private:
  using Function = void (*)();

  static std::vector<std::string> candidates(const std::string &path) {
    if (!path.empty()) return {path};
    if (const char *named = std::getenv("CNNX_ONNXRUNTIME"); named != nullptr && *named != '\0') {
      return {named};
    }
    return {"libonnxruntime.so.1", "libonnxruntime.so"};
  }

  const Function *table_ = nullptr;
  std::string version_;
};

/// An object of ONNX Runtime, which is released at the end.
template <typename Object, typename Release>
class Owned {
 public:
  explicit Owned(const Library &library) : library_(&library) {}
  Owned(const Owned &) = delete;
  Owned &operator=(const Owned &) = delete;
  ~Owned() {
    if (object_ != nullptr) library_->call<Release>(object_);
  }
  Object **out() { return &object_; }
  Object *get() const { return object_; }

 private:
  const Library *library_;
  Object *object_ = nullptr;
};

class OnnxRuntimeSession final : public Session {
 public:
  OnnxRuntimeSession(const std::filesystem::path &bundle, const Manifest &manifest,
                     const OpenOptions &options)
      : manifest_(manifest),
        library_(options.library),
        env_(library_),
        memory_(library_),
        session_(library_) {
    const std::filesystem::path file = bundle / "model.onnx";
    const std::string model = read_checked(file, manifest.files.at("model.onnx"), bundle);
    library_.expect(library_.call<ort::CreateEnv>(ort::kFatal, "cnnx", env_.out()));
    library_.expect(
        library_.call<ort::CreateCpuMemoryInfo>(ort::kArenaAllocator, ort::kDefaultMemory, memory_.out()));
    Owned<ort::SessionOptions, ort::ReleaseSessionOptions> settings(library_);
    library_.expect(library_.call<ort::CreateSessionOptions>(settings.out()));
    library_.expect(library_.call<ort::SetIntraOpNumThreads>(settings.get(), options.threads));
    // Q/DQ run exactly as in the graph: fused into ONNX Runtime's own kernels, logits would differ from
    // those of the self-test.
    library_.expect(
        library_.call<ort::AddSessionConfigEntry>(settings.get(), "session.disable_quant_qdq", "1"));
    const std::string fault = library_.message(library_.call<ort::CreateSessionFromArray>(
        static_cast<const ort::Env *>(env_.get()), static_cast<const void *>(model.data()), model.size(),
        static_cast<const ort::SessionOptions *>(settings.get()), session_.out()));
    if (!fault.empty()) refuse("ONNX Runtime refuses the graph: " + fault, file.string(), kCopyAgain);
  }

  std::string runtime() const override { return "onnxruntime " + library_.version(); }
  std::size_t least_batch() const override { return manifest_.least_batch; }
  std::size_t most_batch() const override { return manifest_.most_batch; }

  void run(const void *input, std::size_t images, float *logits) override {
    using Tensor = Owned<ort::Value, ort::ReleaseValue>;
    Tensor in(library_), out(library_);
    const auto shape = manifest_.input_shape(images);
    const std::array<std::int64_t, 2> results = {shape[0], static_cast<std::int64_t>(manifest_.classes)};
    // ONNX Runtime does not write to an input. NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast)
    tensor(in.out(), const_cast<void *>(input), images * manifest_.image_bytes(), shape.data(), shape.size(),
           manifest_.format.element == CNNX_UINT8 ? ort::kUint8 : ort::kFloat);
    tensor(out.out(), logits, images * manifest_.classes * sizeof(float), results.data(), results.size(),
           ort::kFloat);
    const char *const input_name = manifest_.input.c_str(), *const output_name = manifest_.output.c_str();
    const ort::Value *const given = in.get();
    const std::string fault = library_.message(
        library_.call<ort::Run>(session_.get(), static_cast<const ort::RunOptions *>(nullptr), &input_name,
                                &given, std::size_t{1}, &output_name, std::size_t{1}, out.out()));
    if (!fault.empty()) refuse("ONNX Runtime fails to run the graph: " + fault, manifest_.name, kCopyAgain);
  }

 private:
  void tensor(ort::Value **value, void *data, std::size_t bytes, const std::int64_t *shape, std::size_t rank,
              ort::ElementType type) {
    library_.expect(library_.call<ort::CreateTensorWithDataAsOrtValue>(
        static_cast<const ort::MemoryInfo *>(memory_.get()), data, bytes, shape, rank, type, value));
  }

  const Manifest &manifest_;
  Library library_;
  Owned<ort::Env, ort::ReleaseEnv> env_;
  Owned<ort::MemoryInfo, ort::ReleaseMemoryInfo> memory_;
  Owned<ort::Session, ort::ReleaseSession> session_;
};

}  // namespace

std::unique_ptr<Session> open_onnxruntime(const std::filesystem::path &bundle, const Manifest &manifest,
                                          const OpenOptions &options) {
  return std::make_unique<OnnxRuntimeSession>(bundle, manifest, options);
}

}  // namespace cnnx

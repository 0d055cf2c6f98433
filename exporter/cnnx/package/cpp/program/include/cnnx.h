/* SPDX-License-Identifier: Apache-2.0
 *
 * Classifies images with a cnnx bundle, on TensorRT or ONNX Runtime.
 *
 * The first half is a C ABI: plain structures and functions that return a status. The second half, for
 * C++17, wraps it in a class that closes what it opens and throws `cnnx::Error`.
 *
 *     cnnx::Classifier net("bundle");
 *     for (const cnnx::Guess &guess : net.classify("photo.jpg")) std::puts(guess.name);
 */
#ifndef CNNX_H
#define CNNX_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CNNX_API __attribute__((visibility("default")))
#else
#define CNNX_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Increases when a structure or function changes its meaning. */
#define CNNX_ABI_VERSION 1
CNNX_API int cnnx_abi_version(void);

/* ---- Errors -------------------------------------------------------------------------------------------- */

/* Outcome of a call. The values are the exit codes of cnnx's commands. */
typedef enum cnnx_status {
  CNNX_OK = 0,
  CNNX_FAULT = 1,   /* a fault of this library */
  CNNX_USAGE = 2,   /* arguments that are invalid or contradict each other */
  CNNX_REFUSED = 3, /* a bundle or an image that cannot be used */
  CNNX_LACKS = 4    /* the machine lacks a library, a GPU or memory */
} cnnx_status;

/* The last error of the calling thread: what is wrong, where, and a hint. The texts are never NULL, and
 * stay valid until the next failed call of the same thread. */
typedef struct cnnx_error {
  cnnx_status status;
  const char *what;
  const char *where;
  const char *hint;
  const char *text; /* all of them, on up to three lines */
} cnnx_error;

CNNX_API cnnx_error cnnx_last_error(void);

/* ---- Opening a bundle ---------------------------------------------------------------------------------- */

typedef struct cnnx_classifier cnnx_classifier;

/* How to open a bundle. Zero means the default for every member. */
typedef struct cnnx_options {
  const char *runtime; /* "auto", "tensorrt", "ort" (ONNX Runtime), or "none": only prepare images */
  const char *engine;  /* identity of a TensorRT engine; default: the one that fits this machine best */
  const char *library; /* ONNX Runtime's library; default: $CNNX_ONNXRUNTIME, or libonnxruntime.so */
  int device;          /* CUDA device */
  int threads;         /* threads of ONNX Runtime; 0: one for each core */
} cnnx_options;

/* Checks the bundle's seal and hashes and that an engine fits this machine, and loads the engine, or else the
 * graph (whose hash is checked only then). `options` may be NULL. The result is closed with `cnnx_close`,
 * which accepts NULL. */
CNNX_API cnnx_status cnnx_open(const char *bundle, const cnnx_options *options, cnnx_classifier **classifier);
CNNX_API void cnnx_close(cnnx_classifier *classifier);

typedef enum cnnx_element { CNNX_FLOAT32 = 0, CNNX_UINT8 = 1 } cnnx_element;
typedef enum cnnx_layout { CNNX_NCHW = 0, CNNX_NHWC = 1 } cnnx_layout;

/* What is open. The texts are valid until the classifier is closed. */
typedef struct cnnx_description {
  const char *name;      /* of the bundle */
  const char *precision; /* "fp32", "fp16" or "int8" */
  const char *runtime;   /* such as "tensorrt 10.3.0", or "none" */
  const char *engine;    /* identity of the engine; empty: the graph itself runs */
  size_t classes;
  size_t channels, height, width; /* of an image at the network's input */
  cnnx_element element;           /* type and layout of the network's input */
  cnnx_layout layout;
  size_t image_bytes;             /* of one image at the network's input */
  size_t crop_height, crop_width; /* of `cnnx_crop`'s pixels, which have `channels` channels */
  size_t least_batch, most_batch; /* images that `cnnx_enqueue` takes at a time */
} cnnx_description;

CNNX_API cnnx_status cnnx_describe(const cnnx_classifier *classifier, cnnx_description *description);

/* Name of a class; its index as text if the bundle has no names, NULL if there is no such class. */
CNNX_API const char *cnnx_class_name(const cnnx_classifier *classifier, size_t index);

/* ---- Classifying images -------------------------------------------------------------------------------- */

typedef enum cnnx_color {
  CNNX_GRAY = 0,
  CNNX_RGB = 1,
  CNNX_BGR = 2,
  CNNX_RGBA = 3,
  CNNX_BGRA = 4
} cnnx_color;

/* Pixels of the caller, 8 bits for each channel, rows from top to bottom. Alpha is ignored. */
typedef struct cnnx_image {
  const uint8_t *pixels;
  size_t width, height;
  size_t row_bytes; /* from one row to the next; 0: rows are contiguous */
  cnnx_color color;
} cnnx_image;

/* A class and its probability, the softmax of the logits. */
typedef struct cnnx_guess {
  size_t index;
  double probability;
  const char *name;
} cnnx_guess;

/* Writes the most probable classes, best first and ties by class index, and their number: `count`, or the
 * number of classes if that is smaller. Both calls may be made from several threads; runs take turns. */
CNNX_API cnnx_status cnnx_classify_file(cnnx_classifier *classifier, const char *file, size_t count,
                                        cnnx_guess *guesses, size_t *found);
CNNX_API cnnx_status cnnx_classify_image(cnnx_classifier *classifier, const cnnx_image *image, size_t count,
                                         cnnx_guess *guesses, size_t *found);

/* ---- The steps, for callers with buffers of their own ---------------------------------------------------
 */

/* Resizes and crops an image to the 8-bit pixels that the network sees, in its order of channels. */
CNNX_API cnnx_status cnnx_crop(const cnnx_classifier *classifier, const cnnx_image *image, uint8_t *pixels);

/* Writes an image as the network takes it: `image_bytes` of `cnnx_describe`. */
CNNX_API cnnx_status cnnx_prepare(const cnnx_classifier *classifier, const cnnx_image *image, void *input);

/* Runs any number of prepared images in host memory, in batches. Writes (images, classes) logits. */
CNNX_API cnnx_status cnnx_run(cnnx_classifier *classifier, const void *input, size_t images, float *logits);

/* Starts a run on buffers in device memory and a stream, both of the caller, and returns at once: the
 * logits are there when the stream is done. TensorRT only. Runs of one classifier must not overlap: use
 * one stream, or wait. `stream` is a cudaStream_t. */
CNNX_API cnnx_status cnnx_enqueue(cnnx_classifier *classifier, const void *device_input, size_t images,
                                  float *device_logits, void *stream);

/* The most probable classes by the logits of one image, as in `cnnx_classify_image`. */
CNNX_API cnnx_status cnnx_top(const cnnx_classifier *classifier, const float *logits, size_t count,
                              cnnx_guess *guesses, size_t *found);

/* ---- Self-test ----------------------------------------------------------------------------------------- */

/* Undecided: too few images. The values are the exit codes of cnnx's commands. */
typedef enum cnnx_verdict { CNNX_PASSED = 0, CNNX_FAILED = 1, CNNX_INCONCLUSIVE = 6 } cnnx_verdict;

typedef struct cnnx_check {
  const char *name;
  const char *unit; /* "dB" or "nats" */
  double value;
  double limit;
  int at_least; /* whether the limit is a lower bound */
  cnnx_verdict verdict;
} cnnx_check;

typedef struct cnnx_self_test {
  cnnx_verdict verdict;
  size_t images;
  size_t nonfinite; /* images with a logit that is not finite */
  size_t count;     /* of the checks */
  cnnx_check checks[6];
} cnnx_self_test;

/* Runs the bundle's own images and holds the logits to those recorded at export, with the checks and limits
 * of `cnnx validate`. A verdict other than passed is not an error. */
CNNX_API cnnx_status cnnx_run_self_test(cnnx_classifier *classifier, cnnx_self_test *result);

#ifdef __cplusplus
} /* extern "C" */

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace cnnx {

using Check = cnnx_check;
using Description = cnnx_description;
using Guess = cnnx_guess;
using Image = cnnx_image;
using Options = cnnx_options;
using SelfTest = cnnx_self_test;

/// What is wrong, where, and a hint.
class Error : public std::runtime_error {
 public:
  explicit Error(const cnnx_error &error)
      : std::runtime_error(error.text),
        status_(error.status),
        what_(error.what),
        where_(error.where),
        hint_(error.hint) {}

  /// The exit code of cnnx's commands for this error.
  cnnx_status status() const noexcept { return status_; }
  const std::string &fault() const noexcept { return what_; }
  const std::string &where() const noexcept { return where_; }
  const std::string &hint() const noexcept { return hint_; }

 private:
  cnnx_status status_;
  std::string what_, where_, hint_;
};

/// An opened bundle. Movable; several threads may share one.
class Classifier {
 public:
  explicit Classifier(const std::string &bundle, const Options &options = {}) {
    check(cnnx_open(bundle.c_str(), &options, &handle_));
  }
  ~Classifier() { cnnx_close(handle_); }
  Classifier(Classifier &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Classifier &operator=(Classifier &&other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Classifier(const Classifier &) = delete;
  Classifier &operator=(const Classifier &) = delete;

  Description describe() const {
    Description description{};
    check(cnnx_describe(handle_, &description));
    return description;
  }

  /// The most probable classes of an image file, best first.
  std::vector<Guess> classify(const std::string &file, std::size_t count = 5) {
    return guesses(count, [&](Guess *first, std::size_t *found) {
      return cnnx_classify_file(handle_, file.c_str(), count, first, found);
    });
  }

  /// The most probable classes of pixels in memory, best first.
  std::vector<Guess> classify(const Image &image, std::size_t count = 5) {
    return guesses(count, [&](Guess *first, std::size_t *found) {
      return cnnx_classify_image(handle_, &image, count, first, found);
    });
  }

  SelfTest self_test() {
    SelfTest result{};
    check(cnnx_run_self_test(handle_, &result));
    return result;
  }

  /// The handle, for the functions of the C ABI.
  cnnx_classifier *get() const noexcept { return handle_; }

  /// Throws the error of a failed call.
  static void check(cnnx_status status) {
    if (status != CNNX_OK) throw Error(cnnx_last_error());
  }

 private:
  template <typename Call>
  std::vector<Guess> guesses(std::size_t count, const Call &call) {
    std::vector<Guess> result(count < describe().classes ? count : describe().classes);
    std::size_t found = 0;
    check(call(result.data(), &found));
    result.resize(found);
    return result;
  }

  cnnx_classifier *handle_ = nullptr;
};

}  // namespace cnnx
#endif /* __cplusplus */

#endif /* CNNX_H */

// The C ABI: every function catches what is thrown, and remembers it for the calling thread.
#include <algorithm>
#include <new>

#include "classifier.hpp"
#include "decode.hpp"
#include "error.hpp"

struct cnnx_classifier {
  cnnx::Bundle bundle;
};

namespace {

using cnnx::Fault;

struct LastError {
  cnnx_status status = CNNX_OK;
  std::string what, where, hint, text;
};

thread_local LastError last_error;

cnnx_status remember(const Fault &fault) noexcept {
  try {
    LastError error{fault.status, fault.what_text, fault.where, fault.hint, fault.what_text};
    if (!error.where.empty()) error.text += "\n  where: " + error.where;
    if (!error.hint.empty()) error.text += "\n  hint:  " + error.hint;
    last_error = std::move(error);
  } catch (...) {  // out of memory: the status is all that is left
    last_error = LastError{};
    last_error.status = fault.status;
  }
  return fault.status;
}

/// Runs the body of a function of the ABI, and turns what it throws into a status.
template <typename Body>
cnnx_status guarded(const Body &body) noexcept {
  try {
    body();
    return CNNX_OK;
  } catch (const Fault &fault) {
    return remember(fault);
  } catch (const std::bad_alloc &) {
    return remember(Fault(CNNX_LACKS, "out of memory", {}, "close other programs"));
  } catch (const std::exception &error) {
    return remember(Fault(CNNX_FAULT, error.what(), {}, "report this as a bug of cnnx"));
  } catch (...) {
    return remember(Fault(CNNX_FAULT, "unknown exception", {}, "report this as a bug of cnnx"));
  }
}

template <typename... Pointers>
void expect(const Pointers *...pointers) {
  if (((pointers == nullptr) || ...)) cnnx::misuse("an argument is NULL", "see the comments in cnnx.h");
}

std::string text_or(const char *text, const char *otherwise) {
  return text == nullptr || *text == '\0' ? otherwise : text;
}

void give(const std::vector<cnnx_guess> &result, cnnx_guess *guesses, std::size_t *found) {
  std::copy(result.begin(), result.end(), guesses);
  *found = result.size();
}

}  // namespace

int cnnx_abi_version(void) { return CNNX_ABI_VERSION; }

cnnx_error cnnx_last_error(void) {
  const LastError &error = last_error;
  return {error.status, error.what.c_str(), error.where.c_str(), error.hint.c_str(), error.text.c_str()};
}

cnnx_status cnnx_open(const char *bundle, const cnnx_options *options, cnnx_classifier **classifier) {
  return guarded([&] {
    expect(bundle, classifier);
    *classifier = nullptr;
    const cnnx_options given = options == nullptr ? cnnx_options{} : *options;
    const cnnx::OpenOptions chosen{text_or(given.runtime, "auto"), text_or(given.engine, ""),
                                   text_or(given.library, ""), given.device, given.threads};
    *classifier = new cnnx_classifier{{bundle, chosen}};
  });
}

void cnnx_close(cnnx_classifier *classifier) { delete classifier; }

cnnx_status cnnx_describe(const cnnx_classifier *classifier, cnnx_description *description) {
  return guarded([&] {
    expect(classifier, description);
    *description = classifier->bundle.describe();
  });
}

const char *cnnx_class_name(const cnnx_classifier *classifier, size_t index) {
  return classifier == nullptr ? nullptr : classifier->bundle.class_name(index);
}

cnnx_status cnnx_classify_file(cnnx_classifier *classifier, const char *file, size_t count,
                               cnnx_guess *guesses, size_t *found) {
  return guarded([&] {
    expect(classifier, file, guesses, found);
    const cnnx::Decoded decoded = cnnx::decode(file);
    try {
      give(classifier->bundle.classify(decoded.image, count), guesses, found);
    } catch (Fault &fault) {
      if (fault.where.empty()) fault.where = file;
      throw;
    }
  });
}

cnnx_status cnnx_classify_image(cnnx_classifier *classifier, const cnnx_image *image, size_t count,
                                cnnx_guess *guesses, size_t *found) {
  return guarded([&] {
    expect(classifier, image, guesses, found);
    give(classifier->bundle.classify(*image, count), guesses, found);
  });
}

cnnx_status cnnx_crop(const cnnx_classifier *classifier, const cnnx_image *image, uint8_t *pixels) {
  return guarded([&] {
    expect(classifier, image, pixels);
    const cnnx::Pixels cropped = classifier->bundle.pixels_of(*image);
    std::copy(cropped.values.begin(), cropped.values.end(), pixels);
  });
}

cnnx_status cnnx_prepare(const cnnx_classifier *classifier, const cnnx_image *image, void *input) {
  return guarded([&] {
    expect(classifier, image, static_cast<const char *>(input));
    classifier->bundle.prepare(*image, input);
  });
}

cnnx_status cnnx_run(cnnx_classifier *classifier, const void *input, size_t images, float *logits) {
  return guarded([&] {
    expect(classifier, static_cast<const char *>(input), logits);
    classifier->bundle.run(input, images, logits);
  });
}

cnnx_status cnnx_enqueue(cnnx_classifier *classifier, const void *device_input, size_t images,
                         float *device_logits, void *stream) {
  return guarded([&] {
    expect(classifier, static_cast<const char *>(device_input), device_logits);
    classifier->bundle.enqueue(device_input, images, device_logits, stream);
  });
}

cnnx_status cnnx_top(const cnnx_classifier *classifier, const float *logits, size_t count,
                     cnnx_guess *guesses, size_t *found) {
  return guarded([&] {
    expect(classifier, logits, guesses, found);
    give(classifier->bundle.top(logits, count), guesses, found);
  });
}

cnnx_status cnnx_run_self_test(cnnx_classifier *classifier, cnnx_self_test *result) {
  return guarded([&] {
    expect(classifier, result);
    *result = classifier->bundle.self_test();
  });
}

// cnnx_classify: the most probable classes of image files.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cnnx.h"

namespace {

using Json = nlohmann::ordered_json;

const char *const kUsage =
    "usage: cnnx_classify [OPTION]... BUNDLE [IMAGE]...\n"
    "Print the most probable classes of images: JPEG, PNG, BMP, GIF or PNM.\n"
    "\n"
    "  --top N          number of classes (default: 5)\n"
    "  --self-test      run the bundle's own images and check the logits\n"
    "  --json           print one JSON object\n"
    "  --runtime NAME   auto, tensorrt or ort (default: auto)\n"
    "  --engine NAME    identity of a TensorRT engine\n"
    "  --library FILE   ONNX Runtime's library (default: $CNNX_ONNXRUNTIME)\n"
    "\n"
    "Exit codes: 0 done, 1 self-test failed, 2 usage, 3 input refused, 4 the machine lacks something,\n"
    "6 self-test inconclusive.\n";

struct Arguments {
  std::string bundle, runtime, engine, library;
  std::size_t top = 5;
  bool self_test = false, json = false;
  std::vector<std::string> images;
};

[[noreturn]] void usage(const std::string &fault) {
  std::fprintf(stderr, "cnnx_classify: %s\n%s", fault.c_str(), kUsage);
  std::exit(CNNX_USAGE);
}

Arguments parse(const std::vector<std::string> &words) {
  Arguments result;
  std::size_t i = 0;
  const auto value = [&]() -> const std::string & {
    if (i + 1 >= words.size()) usage(words[i] + " needs a value");
    return words[++i];
  };
  for (; i < words.size(); ++i) {
    const std::string &word = words[i];
    if (word == "--help") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    } else if (word == "--top") {
      const int top = std::atoi(value().c_str());
      if (top < 1) usage("--top needs a number of 1 or more");
      result.top = static_cast<std::size_t>(top);
    } else if (word == "--self-test") {
      result.self_test = true;
    } else if (word == "--json") {
      result.json = true;
    } else if (word == "--runtime") {
      result.runtime = value();
    } else if (word == "--engine") {
      result.engine = value();
    } else if (word == "--library") {
      result.library = value();
    } else if (word.compare(0, 2, "--") == 0) {
      usage("unknown option " + word);
    } else if (result.bundle.empty()) {
      result.bundle = word;
    } else {
      result.images.push_back(word);
    }
  }
  if (result.bundle.empty()) usage("no bundle was given");
  if (result.images.empty() && !result.self_test) usage("no image was given");
  return result;
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json described(const cnnx::Error &error) {
  return {{"what", error.fault()}, {"where", error.where()}, {"hint", error.hint()}};
}

const char *name_of(cnnx_verdict verdict) {
  return verdict == CNNX_PASSED ? "passed" : verdict == CNNX_FAILED ? "failed" : "inconclusive";
}

void print(const Json &object) {
  // A file name need not be UTF-8.
  std::puts(object.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

Json self_test(cnnx::Classifier &net, bool quiet, int &exit_code) {
  const cnnx::SelfTest test = net.self_test();
  exit_code = test.verdict;
  Json checks = Json::array();
  for (std::size_t i = 0; i < test.count; ++i) {
    const cnnx::Check &check = test.checks[i];
    checks.push_back({{"name", check.name},
                      {"unit", check.unit},
                      {"value", number(check.value)},
                      {"limit", number(check.limit)},
                      {"at_least", check.at_least != 0},
                      {"verdict", name_of(check.verdict)}});
    if (!quiet) {
      std::printf("%-60s %10.4g %s %-10.4g %-4s  %s\n", check.name, check.value,
                  check.at_least != 0 ? ">=" : "<=", check.limit, check.unit, name_of(check.verdict));
    }
  }
  if (!quiet) std::printf("self-test with %zu images: %s\n", test.images, name_of(test.verdict));
  return {{"verdict", name_of(test.verdict)},
          {"images", test.images},
          {"nonfinite", test.nonfinite},
          {"checks", checks}};
}

/// Classifies one image. One that cannot be used gives its reason in place of classes.
Json classify(cnnx::Classifier &net, const std::string &image, const Arguments &arguments, int &unread) {
  Json classes = Json::array();
  if (!arguments.json) std::printf("%s\n", image.c_str());
  try {
    for (const cnnx::Guess &guess : net.classify(image, arguments.top)) {
      classes.push_back(
          {{"index", guess.index}, {"name", guess.name}, {"probability", number(guess.probability)}});
      if (!arguments.json) std::printf("  %.4f  %s\n", guess.probability, guess.name);
    }
  } catch (const cnnx::Error &error) {
    if (error.status() != CNNX_REFUSED) throw;
    ++unread;
    if (!arguments.json) std::fprintf(stderr, "error: %s\n", error.what());
    return {{"image", image}, {"classes", classes}, {"error", described(error)}};
  }
  return {{"image", image}, {"classes", classes}};
}

int run(const Arguments &arguments) {
  cnnx::Options options{};
  options.runtime = arguments.runtime.c_str();
  options.engine = arguments.engine.c_str();
  options.library = arguments.library.c_str();
  cnnx::Classifier net(arguments.bundle, options);
  const cnnx::Description description = net.describe();
  int exit_code = 0, unread = 0;
  Json result = {{"bundle", description.name},
                 {"precision", description.precision},
                 {"runtime", description.runtime},
                 {"engine", description.engine}};
  if (!arguments.json) {
    std::printf("%s on %s %s\n", description.name, description.runtime, description.engine);
  }
  if (arguments.self_test) result["self_test"] = self_test(net, arguments.json, exit_code);
  Json images = Json::array();
  for (const std::string &image : arguments.images) images.push_back(classify(net, image, arguments, unread));
  result["images"] = images;
  if (arguments.json) print({{"schema", 1}, {"result", result}});
  const bool is_all_unread = unread > 0 && static_cast<std::size_t>(unread) == arguments.images.size();
  return is_all_unread ? CNNX_REFUSED : exit_code;
}

}  // namespace

int main(int count, char **words) {
  const Arguments arguments = parse({words + 1, words + count});
  try {
    return run(arguments);
  } catch (const cnnx::Error &error) {
    if (arguments.json) {
      print({{"schema", 1}, {"error", described(error)}, {"exit_code", error.status()}});
    } else {
      std::fprintf(stderr, "error: %s\n", error.what());
    }
    return error.status();
  } catch (const std::exception &error) {
    std::fprintf(stderr, "cnnx_classify: %s\n", error.what());
    return CNNX_FAULT;
  }
}

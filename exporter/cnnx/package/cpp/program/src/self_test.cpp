#include "self_test.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "logits.hpp"

namespace cnnx {
namespace {

constexpr double kWorstShare = 0.02;              // of the images, which the limits for each image ignore
constexpr std::size_t kFewestImages = 8;          // for a pass
constexpr std::size_t kFewestImagesAcross = 100;  // for a check that averages over images to fail an engine
constexpr double kLargestDb = 200;

struct Limits {
  double slack_db;    // of the engine's median ratio below the graph's own
  double ceiling_db;  // of the resulting limit
  double divergence;  // in nats, that a single image may always have
};

// For fp32, fp16 and int8.
constexpr std::array<Limits, 3> kLimits = {{{20, 80, 1e-5}, {20, 42, 1e-2}, {4, 42, 1e-2}}};
constexpr double kSingleSlackDb = 6;     // more for single images, which scatter
constexpr double kSingleCeilingDb = 10;  // lower for them
constexpr double kDivergenceFactor = 4;
constexpr double kSystematic = 8;  // squared mean error, relative to that of independent errors
constexpr double kSystematicCeilingDb = 50;
constexpr double kNearerDb = -3, kFurtherDb = 2;  // distance from the original, relative to the graph's

using Values = std::vector<double>;

double db(double power, double noise) {
  if (noise == 0) return kLargestDb;
  const double ratio = power / noise;
  return ratio > 0 ? std::clamp(10 * std::log10(ratio), -kLargestDb, kLargestDb) : -kLargestDb;
}

double median(Values values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// The lowest value after dropping the lowest 2 %, rounded down.
double low(Values values) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(kWorstShare * static_cast<double>(values.size()))];
}

/// The same from the other end.
double high(Values values) {
  for (double &each : values) each = -each;
  return -low(std::move(values));
}

double mean(const Values &values) {
  double sum = 0;
  for (const double each : values) sum += each;
  return sum / static_cast<double>(values.size());
}

/// Logits of N images, row by row.
struct Rows {
  Values values;
  std::size_t classes;

  Rows(const std::vector<float> &logits, std::size_t classes_)
      : values(logits.begin(), logits.end()), classes(classes_) {}
  std::size_t size() const { return values.size() / classes; }
  const double *operator[](std::size_t row) const { return values.data() + row * classes; }

  /// A number for each row, of `values[i]` of this row and of the other.
  template <typename Term>
  Values sums(const Rows &other, const Term &term) const {
    Values result(size());
    for (std::size_t i = 0; i < values.size(); ++i) result[i / classes] += term(values[i], other.values[i]);
    return result;
  }

  Values powers() const {
    return sums(*this, [](double a, double) { return a * a; });
  }
  Values squared_distances(const Rows &other) const {
    return sums(other, [](double a, double b) { return (b - a) * (b - a); });
  }
  Values divergences(const Rows &other) const {
    Values result;
    for (std::size_t row = 0; row < size(); ++row) {
      result.push_back(divergence((*this)[row], other[row], classes));
    }
    return result;
  }
};

Values ratios_db(const Values &power, const Values &noise) {
  Values result;
  for (std::size_t i = 0; i < power.size(); ++i) result.push_back(db(power[i], noise[i]));
  return result;
}

/// The engine's logits with zeros for rows that are not finite, and which rows those are.
std::vector<bool> blank_nonfinite(std::vector<float> &engine, std::size_t classes) {
  std::vector<bool> finite(engine.size() / classes, true);
  for (std::size_t i = 0; i < engine.size(); ++i) {
    if (!std::isfinite(engine[i])) finite[i / classes] = false;
  }
  for (std::size_t i = 0; i < engine.size(); ++i) {
    if (!finite[i / classes]) engine[i] = 0;
  }
  return finite;
}

class Judgment {
 public:
  void at_least(const char *name, double value, double limit, bool is_few = false) {
    add({name, "dB", value, limit, 1, verdict(value >= limit, is_few)});
  }
  void at_most(const char *name, const char *unit, double value, double limit, bool is_few = false) {
    add({name, unit, value, limit, 0, verdict(value <= limit, is_few)});
  }

  /// The overall verdict: failed outranks inconclusive.
  cnnx_self_test result(std::size_t images, std::size_t nonfinite) {
    result_.images = images;
    result_.nonfinite = nonfinite;
    for (std::size_t i = 0; i < result_.count; ++i) {
      cnnx_verdict &each = result_.checks[i].verdict;
      if (images < kFewestImages && each == CNNX_PASSED) each = CNNX_INCONCLUSIVE;
      if (each != CNNX_PASSED && result_.verdict != CNNX_FAILED) result_.verdict = each;
    }
    if (nonfinite > 0) result_.verdict = CNNX_FAILED;
    return result_;
  }

 private:
  static cnnx_verdict verdict(bool is_kept, bool is_few) {
    return is_kept ? CNNX_PASSED : is_few ? CNNX_INCONCLUSIVE : CNNX_FAILED;
  }
  void add(const cnnx_check &check) { result_.checks[result_.count++] = check; }

  cnnx_self_test result_{};
};

/// Checks on single images: the median, and the worst after ignoring a few.
void check_single_images(Judgment &judgment, const Rows &g, const Rows &o, const Rows &e,
                         const std::vector<bool> &finite, const Limits &limits) {
  const Values power = g.powers();
  Values ratios = ratios_db(power, g.squared_distances(e));
  for (std::size_t i = 0; i < ratios.size(); ++i) {
    if (!finite[i]) ratios[i] = -kLargestDb;
  }
  const Values own = ratios_db(power, g.squared_distances(o));
  judgment.at_least("median signal-to-noise ratio", median(ratios),
                    std::min(median(own) - limits.slack_db, limits.ceiling_db));
  judgment.at_least(
      "signal-to-noise ratio of 98 % of the images", low(ratios),
      std::min(low(own) - (limits.slack_db + kSingleSlackDb), limits.ceiling_db - kSingleCeilingDb));
  judgment.at_most("divergence of 98 % of the images", "nats", high(g.divergences(e)),
                   std::max(kDivergenceFactor * high(o.divergences(g)), limits.divergence));
}

/// Checks that need all images together.
void check_across_images(Judgment &judgment, const Rows &g, const Rows &o, const Rows &e, bool is_int8) {
  const std::size_t n = g.size();
  const bool is_few = n < kFewestImagesAcross;
  const Values own = g.squared_distances(o);
  const double distance = median(ratios_db(e.squared_distances(o), own));
  judgment.at_least("distance from the original, over the graph's, at least", distance, kNearerDb, is_few);
  if (!is_int8) return;  // in FP16, two runtimes differ by more than the graph and the original do
  judgment.at_most("distance from the original, over the graph's, at most", "dB", distance, kFurtherDb,
                   is_few);
  const double signal = mean(g.powers());
  // If the errors exceed the graph's own, as with a few outlier images, their size counts.
  const double independent =
      std::max(mean(own), mean(g.squared_distances(e))) * kSystematic / static_cast<double>(n);
  double systematic = 0;
  for (std::size_t i = 0; i < g.classes; ++i) {
    double error = 0;
    for (std::size_t row = 0; row < n; ++row) error += e[row][i] - g[row][i];
    error /= static_cast<double>(n);
    systematic += error * error;
  }
  judgment.at_least("signal over systematic error", db(signal, systematic),
                    std::min(db(signal, independent), kSystematicCeilingDb), is_few);
}

}  // namespace

cnnx_self_test judge(const Reference &reference, const std::vector<float> &engine, const Manifest &manifest) {
  std::vector<float> logits = engine;
  const auto finite = blank_nonfinite(logits, manifest.classes);
  const Rows g(reference.graph, manifest.classes);
  const Rows o(reference.original, manifest.classes);
  const Rows e(logits, manifest.classes);
  Judgment judgment;
  check_single_images(judgment, g, o, e, finite, kLimits[static_cast<std::size_t>(manifest.precision)]);
  if (manifest.precision != Precision::fp32) {
    check_across_images(judgment, g, o, e, manifest.precision == Precision::int8);
  }
  return judgment.result(reference.images,
                         static_cast<std::size_t>(std::count(finite.begin(), finite.end(), false)));
}

}  // namespace cnnx

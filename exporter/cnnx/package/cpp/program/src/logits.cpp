#include "logits.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace cnnx {

std::vector<double> log_softmax(const double *logits, std::size_t classes) {
  const double largest = *std::max_element(logits, logits + classes);
  double sum = 0;
  for (std::size_t i = 0; i < classes; ++i) sum += std::exp(logits[i] - largest);
  std::vector<double> result(logits, logits + classes);
  for (double &each : result) each = each - largest - std::log(sum);
  return result;
}

std::vector<std::size_t> top(const float *logits, std::size_t classes, std::size_t count) {
  std::vector<std::size_t> order(classes);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto better = [&](std::size_t a, std::size_t b) {
    const bool is_number = !std::isnan(logits[a]), is_other = !std::isnan(logits[b]);
    if (is_number != is_other) return is_number;
    if (is_number && logits[a] != logits[b]) return logits[a] > logits[b];
    return a < b;
  };
  const auto last = order.begin() + static_cast<std::ptrdiff_t>(std::min(count, classes));
  std::partial_sort(order.begin(), last, order.end(), better);
  order.erase(last, order.end());
  return order;
}

double divergence(const double *original, const double *other, std::size_t classes) {
  const auto ours = log_softmax(original, classes), theirs = log_softmax(other, classes);
  double sum = 0;
  for (std::size_t i = 0; i < classes; ++i) sum += std::exp(ours[i]) * (ours[i] - theirs[i]);
  return sum;
}

}  // namespace cnnx

// Probabilities, ranks and divergences of logits.
#pragma once

#include <cstddef>
#include <vector>

namespace cnnx {

/// Logarithms of the softmax.
std::vector<double> log_softmax(const double *logits, std::size_t classes);

/// Indices of the largest logits, best first; ties go to the lower index, and NaN comes last.
std::vector<std::size_t> top(const float *logits, std::size_t classes, std::size_t count);

/// Kullback-Leibler divergence, in nats, of the probabilities of `other` from those of `original`.
double divergence(const double *original, const double *other, std::size_t classes);

}  // namespace cnnx

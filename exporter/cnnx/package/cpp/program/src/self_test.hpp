// Holds the logits of an engine to those that the bundle's graph gave at export.
#pragma once

#include <vector>

#include "cnnx.h"
#include "manifest.hpp"
#include "reference.hpp"

namespace cnnx {

/// Judges the engine's logits for the images of the self-test, with the checks and limits of cnnx
/// (exporter/cnnx/selftest.py, which gives the reasons).
cnnx_self_test judge(const Reference &reference, const std::vector<float> &engine, const Manifest &manifest);

}  // namespace cnnx

// engine.json, the header of a plan, and the choice of an engine for a machine.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "manifest.hpp"

namespace cnnx {

/// Major, minor and patch of a TensorRT release.
using Release = std::array<int, 3>;

std::string text_of(const Release &release);

/// Which GPUs an engine runs on, widest first. An engine for fewer GPUs is faster on those.
enum class Reach { ampere_plus, compute_capability, gpu };

/// A TensorRT engine of a bundle.
struct Engine {
  std::string identity, file, digest;
  Release release{};
  int capability = 0;  // the GPU architecture it was built for, such as 86; 0 if not stated
  Reach reach = Reach::compute_capability;
  bool for_newer_releases = false;  // "version compatible"; it needs host code
  std::optional<int> dla_core;
  bool is_tuned_for_one_batch = false;  // of several
  std::string machine;                  // architecture of the CPU, such as aarch64; empty if not stated

  std::filesystem::path path(const std::filesystem::path &bundle) const {
    return bundle / "engines" / identity / file;
  }
};

/// What a machine offers to engines.
struct Machine {
  Release release{};   // of the TensorRT library that is linked
  int capability = 0;  // of the GPU
  std::string cpu;     // architecture, as uname reports it
};

/// The current TensorRT engines of a bundle: those built from its graph.
std::vector<Engine> read_engines(const std::filesystem::path &bundle, const Manifest &manifest);

/// The engine of that identity, or else the best one for the machine; none if the bundle has no engines.
/// Refuses if every candidate was built for another machine. Nothing is loaded, and no file is read but
/// the descriptions and the headers of plans.
std::optional<Engine> choose_engine(const std::filesystem::path &bundle, const Manifest &manifest,
                                    const std::string &identity, const Machine &machine);

/// Refuses a plan that another release wrote than its description states.
void check_plan_header(std::string_view plan, const Engine &engine, const std::filesystem::path &bundle);

}  // namespace cnnx

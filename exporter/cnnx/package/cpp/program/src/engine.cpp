#include "engine.hpp"

#include <algorithm>
#include <tuple>

#include "error.hpp"
#include "files.hpp"
#include "sealed.hpp"

namespace cnnx {
namespace {

constexpr std::size_t kHeader = 28;

/// "10.3.0" of "10.3.0.26"; zeros if it is not a version.
Release release_of(const std::string &version) {
  Release release{};
  std::size_t at = 0;
  for (int &part : release) {
    const std::size_t end = std::min(version.find('.', at), version.size());
    const std::string digits = version.substr(at, end - at);
    if (digits.empty() || digits.size() > 6 || digits.find_first_not_of("0123456789") != std::string::npos) {
      return {};
    }
    part = std::stoi(digits);
    at = std::min(end + 1, version.size());
  }
  return release;
}

/// 86 of "sm86", 0 of "".
int capability_of(const Field &field) {
  const std::string target = field.text();
  if (target.empty()) return 0;
  const std::string digits = target.substr(std::min<std::size_t>(2, target.size()));
  const bool valid = target.compare(0, 2, "sm") == 0 && !digits.empty() && digits.size() <= 4 &&
                     digits.find_first_not_of("0123456789") == std::string::npos;
  if (!valid) field.refuse("should be a GPU architecture such as sm86, or empty");
  return std::stoi(digits);
}

Reach read_reach(const Field &field) {
  const std::string name = field.text();
  if (name == "ampere_plus") return Reach::ampere_plus;
  if (name == "compute_capability") return Reach::compute_capability;
  if (name == "gpu") return Reach::gpu;
  field.refuse("should be compute_capability, gpu or ampere_plus");
}

Engine read_engine(const Field &root, const std::string &folder) {
  Engine engine;
  engine.identity = root.at("identity").file_name();
  if (engine.identity != folder) root.at("identity").refuse("is not the name of the folder");
  engine.file = root.at("file").file_name();
  engine.digest = root.at("digest").digest();
  const Field version = root.at("runtime_version");
  engine.release = release_of(version.text());
  if (engine.release == Release{}) version.refuse("should be a version such as 10.3.0");
  engine.capability = capability_of(root.at("target"));
  if (const auto reach = root.find("reach")) engine.reach = read_reach(*reach);
  if (const auto newer = root.find("version_compatible")) engine.for_newer_releases = newer->boolean();
  if (const auto core = root.find("dla_core"); core && !core->is_null()) {
    constexpr int kMostCores = 64;
    engine.dla_core = static_cast<int>(core->integer(0, kMostCores));
  }
  if (const auto batch = root.find("batch"); batch && batch->size() != 0) {
    constexpr std::int64_t kMost = INT32_MAX;
    engine.is_tuned_for_one_batch = (*batch)[1].integer(1, kMost) != (*batch)[2].integer(1, kMost);
  }
  if (const auto machine = root.at("environment").find("machine"); machine && !machine->is_null()) {
    engine.machine = machine->text();
  }
  return engine;
}

/// Why a machine cannot run an engine: what the engine needs, and what the machine has. None if it can.
std::optional<std::pair<std::string, std::string>> misfit(const Engine &engine, const Machine &machine) {
  const bool newer = engine.for_newer_releases && machine.release > engine.release;
  if (machine.release != engine.release && !newer) {
    return std::pair("TensorRT " + text_of(engine.release) + (engine.for_newer_releases ? " or newer" : ""),
                     "TensorRT " + text_of(machine.release));
  }
  if (!engine.machine.empty() && engine.machine != machine.cpu) {
    return std::pair(shown(engine.machine), machine.cpu);
  }
  constexpr int kAmpere = 80;
  const std::string here = "sm" + std::to_string(machine.capability);
  if (engine.reach == Reach::ampere_plus) {
    if (machine.capability < kAmpere) return std::pair(std::string("sm80 or newer"), here);
  } else if (engine.capability != 0 && engine.capability != machine.capability) {
    return std::pair("sm" + std::to_string(engine.capability), here);
  }
  return std::nullopt;
}

std::string build_hint(const std::filesystem::path &bundle) {
  return "build it on this machine: cnnx build " + bundle.string() + " --target tensorrt";
}

/// Largest first: default options, fewest GPUs, newest release. As in cnnx.
auto preference(const Engine &engine) {
  const bool is_default = !engine.dla_core && !engine.for_newer_releases && !engine.is_tuned_for_one_batch;
  return std::tuple(is_default, engine.reach, engine.release);
}

}  // namespace

std::string text_of(const Release &release) {
  return std::to_string(release[0]) + "." + std::to_string(release[1]) + "." + std::to_string(release[2]);
}

std::vector<Engine> read_engines(const std::filesystem::path &bundle, const Manifest &manifest) {
  std::vector<std::filesystem::path> folders;
  std::error_code error;
  for (std::filesystem::directory_iterator each(bundle / "engines", error), end; !error && each != end;
       each.increment(error)) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(each->path() / "engine.json", ignored)) {
      folders.push_back(each->path());
    }
  }
  std::sort(folders.begin(), folders.end());
  std::vector<Engine> engines;
  for (const auto &folder : folders) {
    const std::filesystem::path file = folder / "engine.json";
    const Sealed sealed(file, bundle);
    const Field root = sealed.root();
    const bool is_current = root.at("graph_digest").digest() == manifest.files.at("model.onnx");
    if (root.at("runtime").text() != "tensorrt" || !is_current) continue;
    engines.push_back(read_engine(root, folder.filename().string()));
  }
  return engines;
}

std::optional<Engine> choose_engine(const std::filesystem::path &bundle, const Manifest &manifest,
                                    const std::string &identity, const Machine &machine) {
  std::vector<Engine> engines = read_engines(bundle, manifest);
  if (!identity.empty()) {
    engines.erase(std::remove_if(engines.begin(), engines.end(),
                                 [&](const Engine &each) { return each.identity != identity; }),
                  engines.end());
    if (engines.empty()) {
      misuse("the bundle has no TensorRT engine '" + shown(identity) + "'", build_hint(bundle));
    }
  }
  if (engines.empty()) return std::nullopt;
  const Engine first = engines.front();
  engines.erase(std::remove_if(engines.begin(), engines.end(),
                               [&](const Engine &each) { return misfit(each, machine).has_value(); }),
                engines.end());
  if (engines.empty()) {
    const auto [needed, found] = *misfit(first, machine);
    refuse("the engine needs " + needed + ", but this machine has " + found,
           first.path(bundle).parent_path().string(), build_hint(bundle));
  }
  return *std::max_element(engines.begin(), engines.end(),
                           [](const Engine &a, const Engine &b) { return preference(a) < preference(b); });
}

void check_plan_header(std::string_view plan, const Engine &engine, const std::filesystem::path &bundle) {
  const std::string where = engine.path(bundle).string();
  const bool is_known = plan.size() >= kHeader && plan.substr(4, 4) == std::string_view("\0\0\0\0", 4) &&
                        (plan.substr(0, 4) == "ftrt" || plan.substr(0, 4) == "vtrt");
  if (!is_known) return;  // TensorRT itself decides about a header that is not known here
  const auto byte = [&](std::size_t at) { return static_cast<int>(static_cast<unsigned char>(plan[at])); };
  const Release release = {byte(24), byte(25), byte(26)};
  const bool is_tensorrt = plan[0] == 'f';
  if (!is_tensorrt || release != engine.release) {
    refuse("engine.json states TensorRT " + text_of(engine.release) +
               ", but the plan was written by TensorRT " + (is_tensorrt ? "" : "for RTX ") + text_of(release),
           where, build_hint(bundle));
  }
}

}  // namespace cnnx

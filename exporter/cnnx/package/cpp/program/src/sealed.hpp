// JSON files with a seal, and typed access to their values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "error.hpp"

namespace cnnx {

using Json = nlohmann::json;

/// A value in a sealed file, valid as long as that. What is missing, or of another type or range, is refused
/// by its path, such as `inputs[0].shape`.
class Field {
 public:
  Field(const Json &value, const std::filesystem::path &file, std::string path = "")
      : value_(&value), file_(&file), path_(std::move(path)) {}

  Field at(const char *key) const;
  std::optional<Field> find(const char *key) const;
  Field operator[](std::size_t index) const;

  std::size_t size() const;  ///< of an array
  bool is_null() const;
  bool is_array() const;
  std::string text() const;
  std::string digest() const;     ///< a SHA-256 in hexadecimal
  std::string file_name() const;  ///< a name without a path
  bool boolean() const;
  double number() const;
  std::int64_t integer(std::int64_t least, std::int64_t most) const;

  /// Refuses every key that is not listed: it could change what the network sees.
  void only(std::initializer_list<const char *> keys) const;

  [[noreturn]] void refuse(const std::string &fault) const;

 private:
  const Json &object() const;
  std::string under(const std::string &key) const { return path_.empty() ? key : path_ + "." + key; }

  const Json *value_;
  const std::filesystem::path *file_;
  std::string path_;
};

/// A JSON file that cnnx wrote and sealed. Refuses one that is missing, lies outside the bundle, was
/// modified, or has another schema.
class Sealed {
 public:
  Sealed(const std::filesystem::path &file, const std::filesystem::path &bundle);
  ~Sealed();
  Sealed(const Sealed &) = delete;
  Sealed &operator=(const Sealed &) = delete;

  Field root() const { return {*data_, file_}; }

 private:
  std::filesystem::path file_;
  std::unique_ptr<const Json> data_;
};

}  // namespace cnnx

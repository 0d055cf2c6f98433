// The seal is the SHA-256 of the data in the form that Python's json.dumps gives with sorted keys, compact
// separators and ASCII only. The file itself has another form: one space of indentation, keys in the order
// they were written. Both are rebuilt here while the file is parsed, with numbers as they stand in the text:
// Python and C++ need not agree on how to print a float.
#include "sealed.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "files.hpp"
#include "sha256.hpp"

namespace cnnx {
namespace {

constexpr std::size_t kLargest = std::size_t{64} << 20U;
constexpr std::size_t kDeepest = 40;
constexpr int kSchema = 1;
const char *const kSeal = "seal";

class Forms final : public nlohmann::json_sax<Json> {
 public:
  std::string written;  // the form of the file
  std::string digest;   // of the data without the seal
  std::string seal;     // empty if it is not the last key
  std::string fault;

  bool null() override { return value("null", "null"); }
  bool boolean(bool value_) override { return plain(value_ ? "true" : "false"); }
  bool number_integer(number_integer_t number) override { return plain(std::to_string(number)); }
  bool number_unsigned(number_unsigned_t number) override { return plain(std::to_string(number)); }
  bool number_float(number_float_t /*number*/, const string_t &token) override { return plain(token); }
  bool binary(binary_t & /*bytes*/) override { return false; }
  bool string(string_t &text) override {
    if (levels_.size() == 1 && levels_.back().key == kSeal) seal = text;
    return value(Json(text).dump(-1, ' ', true), Json(text).dump());
  }

  bool start_object(std::size_t /*size*/) override { return open('{'); }
  bool start_array(std::size_t /*size*/) override { return open('['); }
  bool end_object() override { return close('}'); }
  bool end_array() override { return close(']'); }
  bool key(string_t &name) override {
    Level &level = levels_.back();
    if (level.members.count(name) != 0) return fails("the key '" + shown(name) + "' is duplicated");
    level.key = name;
    if (levels_.size() == 1) seal.clear();  // only the last key counts
    next();
    written += Json(name).dump() + ": ";
    return true;
  }

  bool parse_error(std::size_t position, const std::string & /*token*/,
                   const nlohmann::detail::exception & /*error*/) override {
    return fails("it is not valid JSON at byte " + std::to_string(position));
  }

 private:
  struct Level {
    bool is_object;
    bool is_empty = true;
    std::string key;
    std::map<std::string, std::string> members;  // sorted by bytes, which is Python's order of code points
    std::string elements;
  };

  bool fails(std::string what) {
    fault = std::move(what);
    return false;
  }

  void indent() { written += '\n' + std::string(levels_.size(), ' '); }

  /// Puts a comma, if there was something, and starts a line.
  void next() {
    if (!levels_.back().is_empty) written += ',';
    levels_.back().is_empty = false;
    indent();
  }

  /// The same for an element of an array; a member was placed with its key.
  void place() {
    if (!levels_.empty() && !levels_.back().is_object) next();
  }

  bool plain(const std::string &token) { return value(token, token); }

  bool value(const std::string &compact, const std::string &as_written) {
    place();
    written += as_written;
    return keep(compact);
  }

  bool keep(const std::string &compact) {
    if (levels_.empty()) return fails("it is not an object");
    Level &level = levels_.back();
    if (level.is_object) {
      level.members.emplace(level.key, compact);
    } else {
      level.elements += (level.elements.empty() ? "" : ",") + compact;
    }
    return true;
  }

  bool open(char bracket) {
    if (levels_.size() == kDeepest) return fails("nested too deeply");
    place();
    written += bracket;
    levels_.push_back(Level{bracket == '{', true, {}, {}, {}});
    return true;
  }

  bool close(char bracket) {
    Level level = std::move(levels_.back());
    levels_.pop_back();
    if (!level.is_empty) indent();
    written += bracket;
    if (levels_.empty()) {
      if (!level.is_object) return fails("it is not an object");
      level.members.erase(kSeal);
      digest = sha256(compact(level));
      return true;
    }
    return keep(compact(level));
  }

  static std::string compact(const Level &level) {
    if (!level.is_object) return '[' + level.elements + ']';
    std::string text;
    for (const auto &[name, member] : level.members) {
      text += (text.empty() ? "" : ",") + Json(name).dump(-1, ' ', true) + ':' + member;
    }
    return '{' + text + '}';
  }

  std::vector<Level> levels_;
};

bool is_hex(char each) { return (each >= '0' && each <= '9') || (each >= 'a' && each <= 'f'); }

}  // namespace

Sealed::Sealed(const std::filesystem::path &file, const std::filesystem::path &bundle) : file_(file) {
  const std::string name = file.filename().string(), where = file.string();
  const std::string text = read_inside(file, bundle, kLargest);
  Forms forms;
  if (!Json::sax_parse(text, &forms)) refuse(name + " is damaged: " + forms.fault, where, kCopyAgain);
  if (forms.seal.empty()) refuse(name + " is damaged: it does not end with its seal", where, kCopyAgain);
  if (forms.digest != forms.seal || forms.written + "\n" != text) {
    refuse(name + " was modified after it was written", where, kCopyAgain);
  }
  data_ = std::make_unique<const Json>(Json::parse(text));
  if (data_->value("schema", Json()) != kSchema) {
    refuse(name + " has another schema than " + std::to_string(kSchema) + ", which this program reads", where,
           "make the package again with the version of cnnx that wrote the bundle");
  }
}

Sealed::~Sealed() = default;

Field Field::at(const char *key) const {
  const auto found = find(key);
  if (!found) cnnx::refuse("the key " + under(key) + " is missing", file_->string(), kCopyAgain);
  return *found;
}

std::optional<Field> Field::find(const char *key) const {
  const auto found = object().find(key);
  if (found == object().end()) return std::nullopt;
  return Field(*found, *file_, under(key));
}

Field Field::operator[](std::size_t index) const {
  if (index >= size()) refuse("should have more than " + std::to_string(index) + " elements");
  return {(*value_)[index], *file_, path_ + "[" + std::to_string(index) + "]"};
}

bool Field::is_null() const { return value_->is_null(); }

bool Field::is_array() const { return value_->is_array(); }

std::size_t Field::size() const {
  if (!is_array()) refuse("should be a list");
  return value_->size();
}

std::string Field::text() const {
  if (!value_->is_string()) refuse("should be a string");
  const auto &text = value_->get_ref<const std::string &>();
  // A NUL would end the text for callers of the C ABI.
  if (text.find('\0') != std::string::npos) refuse("should be a string without NUL");
  return text;
}

std::string Field::digest() const {
  std::string found = text();
  if (found.size() != 64 || !std::all_of(found.begin(), found.end(), is_hex)) {
    refuse("should be a SHA-256 in lower-case hexadecimal");
  }
  return found;
}

std::string Field::file_name() const {
  std::string found = text();
  const bool odd = std::any_of(found.begin(), found.end(),
                               [](unsigned char c) { return c < 0x20 || c == '/' || c == '\\'; });
  if (odd || found.empty() || found.size() > 255 || found == "." || found == "..") {
    refuse("should be the name of a file in this folder, without a path");
  }
  return found;
}

bool Field::boolean() const {
  if (!value_->is_boolean()) refuse("should be true or false");
  return value_->get<bool>();
}

double Field::number() const {
  if (!value_->is_number()) refuse("should be a number");
  const auto found = value_->get<double>();
  // Every number is used as a float32, which must hold it.
  if (!(std::fabs(found) <= 3e38)) refuse("should be a number that a float32 can hold");
  return found;
}

std::int64_t Field::integer(std::int64_t least, std::int64_t most) const {
  const bool fits = value_->is_number_integer() &&
                    (!value_->is_number_unsigned() || value_->get<std::uint64_t>() <= INT64_MAX);
  const std::int64_t found = fits ? value_->get<std::int64_t>() : 0;
  if (!fits || found < least || found > most) {
    refuse("should be an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return found;
}

void Field::only(std::initializer_list<const char *> keys) const {
  for (const auto &item : object().items()) {
    if (std::none_of(keys.begin(), keys.end(), [&](const char *each) { return item.key() == each; })) {
      cnnx::refuse("the key " + under(shown(item.key())) + " is not known to this program", file_->string(),
                   "make the package again with the version of cnnx that wrote the bundle");
    }
  }
}

void Field::refuse(const std::string &fault) const {
  cnnx::refuse(path_ + " " + fault, file_->string(), kCopyAgain);
}

const Json &Field::object() const {
  if (!value_->is_object()) {
    cnnx::refuse((path_.empty() ? "the file" : path_) + " should be an object", file_->string(), kCopyAgain);
  }
  return *value_;
}

}  // namespace cnnx

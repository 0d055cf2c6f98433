#include "files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <system_error>

#include "error.hpp"
#include "sha256.hpp"

namespace cnnx {
namespace {

constexpr std::size_t kLargest = std::size_t{4} << 30U;  // engines; a graph in one file has less than 2 GiB

struct Close {
  void operator()(std::FILE *file) const noexcept { std::fclose(file); }
};
using Opened = std::unique_ptr<std::FILE, Close>;

bool is_inside(const fs::path &file, const fs::path &bundle) {
  std::error_code error;
  const fs::path real = fs::canonical(file, error);
  if (error) return false;
  const fs::path root = fs::canonical(bundle, error);
  if (error) return false;
  return std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first == root.end();
}

}  // namespace

std::string read_file(const fs::path &file, std::size_t limit) {
  const Opened opened(std::fopen(file.c_str(), "rb"));
  std::error_code error;
  if (!opened || !fs::is_regular_file(file, error)) {
    refuse(std::string("cannot be read: ") + (opened ? "not a file" : std::strerror(errno)), file.string(),
           "check that the file exists and is readable");
  }
  std::string content;
  std::size_t size = 0;
  do {
    content.resize(std::max<std::size_t>(2 * size, std::size_t{1} << 16U));
    size += std::fread(&content[size], 1, content.size() - size, opened.get());
    if (size > limit) {
      refuse("the file is too large: more than " + std::to_string(limit) + " bytes", file.string(),
             kCopyAgain);
    }
  } while (size == content.size());
  if (std::ferror(opened.get()) != 0) refuse("cannot be read", file.string(), "check the disk");
  content.resize(size);
  return content;
}

std::string read_inside(const fs::path &file, const fs::path &bundle, std::size_t limit) {
  const std::string name = file.lexically_relative(bundle).string();
  std::error_code error;
  if (!fs::is_regular_file(file, error)) refuse(shown(name) + " is missing", bundle.string(), kCopyAgain);
  if (!is_inside(file, bundle)) {
    refuse(shown(name) + " is a link to a file outside the bundle", bundle.string(),
           "replace the link with a copy of the file");
  }
  return read_file(file, limit);
}

std::string read_checked(const fs::path &file, const std::string &digest, const fs::path &bundle) {
  std::string content = read_inside(file, bundle, kLargest);
  const std::string found = sha256(content);
  if (found != digest) {
    refuse(shown(file.lexically_relative(bundle).string()) + " was modified: its SHA-256 is " +
               found.substr(0, 12) + ", not " + digest.substr(0, 12),
           bundle.string(), kCopyAgain);
  }
  return content;
}

bool is_utf8(const std::string &text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at++]);
    const int more = lead < 0x80   ? 0
                     : lead < 0xC2 ? -1
                     : lead < 0xE0 ? 1
                     : lead < 0xF0 ? 2
                     : lead < 0xF5 ? 3
                                   : -1;
    if (more < 0) return false;
    for (int i = 0; i < more; ++i, ++at) {
      const unsigned char next = at < text.size() ? static_cast<unsigned char>(text[at]) : 0;
      // The second byte also excludes overlong forms, surrogates, and what lies beyond U+10FFFF.
      const unsigned char low = i > 0 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
      const unsigned char high = i > 0 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
      if (next < low || next > high) return false;
    }
  }
  return true;
}

std::string shown(const std::string &text) {
  constexpr std::size_t kMost = 80;
  const bool is_text = is_utf8(text);
  std::size_t end = std::min(text.size(), kMost);
  // Do not cut a character: bytes after its first are 10xxxxxx.
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) --end;
  std::string result = text.substr(0, end);
  for (char &each : result) {
    const auto byte = static_cast<unsigned char>(each);
    if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !is_text)) each = '?';
  }
  return end < text.size() ? result + "..." : result;
}

}  // namespace cnnx

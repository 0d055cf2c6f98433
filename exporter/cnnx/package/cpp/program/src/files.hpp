// Files of a bundle: read whole, never through a link that leaves the bundle, and checked by their hash.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace cnnx {

namespace fs = std::filesystem;

/// The whole content of a file; refuses one of more than `limit` bytes.
std::string read_file(const fs::path &file, std::size_t limit);

/// The content of a bundle's file. Refuses one that is missing, or a link out of the bundle.
std::string read_inside(const fs::path &file, const fs::path &bundle, std::size_t limit);

/// The same, after its SHA-256 was checked: what is returned is what was hashed.
std::string read_checked(const fs::path &file, const std::string &digest, const fs::path &bundle);

/// Whether text is valid UTF-8.
bool is_utf8(const std::string &text);

/// A text that can be shown: without control characters, and not too long.
std::string shown(const std::string &text);

}  // namespace cnnx

// Small text helpers that the C++20 library lacks. Byte-wise, never locale-dependent.
#pragma once

#include <charconv>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace arca::base {

// Parts of `text` between `separator`s; empty parts are kept ("a::b" has three), "" has one.
std::vector<std::string_view> split(std::string_view text, char separator);
// The parts of a string that ends with the call would be of nothing.
template <std::same_as<std::string> Temporary>
std::vector<std::string_view> split(Temporary&& text, char separator) = delete;

// `text` without spaces, tabs and line ends at both sides.
std::string_view trim(std::string_view text);

std::string join(const std::vector<std::string>& parts, std::string_view separator);

// ASCII only.
std::string toUpper(std::string_view text);
std::string toLower(std::string_view text);

// The whole of `text` as a number in `base`: no sign for unsigned types, no spaces, no prefix;
// nullopt when anything is left over or the value does not fit T.
template <typename T>
std::optional<T> parseNumber(std::string_view text, int base = 10) {
    T value{};
    const char* end = text.data() + text.size();
    const auto [ptr, error] = std::from_chars(text.data(), end, value, base);
    if (error != std::errc{} || ptr != end || text.empty()) return std::nullopt;
    return value;
}

// `text` with every byte that could break a line or a terminal (control bytes, DEL) written as
// \xNN.
std::string printable(std::string_view text);

// Length in bytes of the well-formed UTF-8 sequence at the start of `text` (no surrogates, nothing
// overlong); 0 when there is none.
size_t utf8SequenceLength(std::string_view text);
bool isUtf8(std::string_view text);

// The clean form of a path by text alone: no "//", "." or trailing "/", ".." taken back (never
// above an absolute path's "/"). "" becomes ".".
std::string cleanPath(std::string_view path);

// `path` itself when absolute, else joined to `base_dir`; cleaned.
std::string absolutePath(std::string_view base_dir, std::string_view path);

// FNV-1a of the bytes, as 16 lower-case hexadecimal digits: for names that must be short and need
// not resist anybody.
std::string fnv1aHex(std::string_view bytes);

}  // namespace arca::base

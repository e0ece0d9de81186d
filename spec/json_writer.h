// Writes compact JSON by appending to one string; no tree in between.
//
// Internal to spec/ (write.cc, state.cc, features.cc, plan.cc). Commas are found by looking at the
// last byte that was written, so there is no state besides the text.
#pragma once

#include <charconv>
#include <concepts>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "spec/json_reader.h"

namespace arca::spec {

class JsonWriter {
 public:
    // `utf8`: kRaw leaves bytes that are no UTF-8 as they are (our own parser takes them), kStrict
    // writes U+FFFD for each.
    explicit JsonWriter(JsonUtf8 utf8 = JsonUtf8::kRaw) : utf8_(utf8) {}

    void beginObject() { open('{'); }
    void endObject() { text_ += '}'; }
    void beginArray() { open('['); }
    void endArray() { text_ += ']'; }
    // The name of the member whose value comes next.
    void name(std::string_view name);
    void string(std::string_view value);
    void boolean(bool value) { raw(value ? "true" : "false"); }
    template <std::integral T>
    void number(T value) {
        char digits[24];
        const auto result = std::to_chars(digits, digits + sizeof digits, value);
        raw({digits, static_cast<size_t>(result.ptr - digits)});
    }
    // A value that is JSON already.
    void raw(std::string_view json) {
        comma();
        text_ += json;
    }

    void reserve(size_t bytes) { text_.reserve(bytes); }
    [[nodiscard]] std::string take() { return std::move(text_); }

 private:
    void open(char bracket) {
        comma();
        text_ += bracket;
    }
    void comma();
    void quoted(std::string_view value);

    JsonUtf8 utf8_;
    std::string text_;
};

// encode(writer, value) writes one value. These are for the plain types; each file adds those of
// its structs (`static`, see json_reader.h).
inline void encode(JsonWriter& writer, bool value) {
    writer.boolean(value);
}
inline void encode(JsonWriter& writer, const std::string& value) {
    writer.string(value);
}
template <std::integral T>
requires(!std::same_as<T, bool>) void encode(JsonWriter& writer, T value) {
    writer.number(value);
}
template <typename T>
void encode(JsonWriter& writer, const std::vector<T>& list) {
    writer.beginArray();
    for (const T& element : list) encode(writer, element);
    writer.endArray();
}
template <typename T>
void encode(JsonWriter& writer, const std::map<std::string, T>& map) {
    writer.beginObject();
    for (const auto& [name, value] : map) {
        writer.name(name);
        encode(writer, value);
    }
    writer.endObject();
}

// Writes a member whatever its value.
template <typename T>
void put(JsonWriter& writer, std::string_view name, const T& value) {
    writer.name(name);
    encode(writer, value);
}

// Writes a member unless it is what an absent one is read as: false, 0, "", [], {}, nullopt.
template <typename T>
void putSet(JsonWriter& writer, std::string_view name, const T& value) {
    if constexpr (std::integral<T>) {
        if (value == T{}) return;
    } else {
        if (value.empty()) return;
    }
    put(writer, name, value);
}
template <typename T>
void putSet(JsonWriter& writer, std::string_view name, const std::optional<T>& value) {
    if (value) put(writer, name, *value);
}

// `json` (compact, as JsonWriter makes it) with each member and element on a line of its own,
// `indent` a level, and a final newline; empty objects and arrays stay closed.
std::string indentJson(std::string_view json, std::string_view indent);

}  // namespace arca::spec

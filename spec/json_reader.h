// Reads JSON text into plain structs, and knows for every value where it stands.
//
// Internal to spec/: parse*.cc and plan.cc use it. The text is parsed once into a flat list of
// nodes; strings stay in one buffer, where their escapes are resolved in place. A whole DOM was
// measured at ten times the time, and `run` parses a configuration in three processes.
//
// Failing is sticky: the first fail() is kept, later ones are ignored, and values that cannot be
// read leave their target as it was. So decoders are straight lists of properties, and whoever
// started the reading asks failed() once. Nothing here throws but std::bad_alloc.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"
#include "spec/parse.h"

namespace arca::spec {

enum class JsonType : uint8_t { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };

// "an object", "a string", ... for messages.
std::string_view jsonTypeName(JsonType type);

// A place in the buffer.
struct JsonSlice {
    uint32_t at = 0;
    uint32_t size = 0;
};

// One value. Its children are the nodes from its own index + 1 up to `end`.
struct JsonNode {
    JsonType type = JsonType::kNull;
    uint32_t parent = 0;
    uint32_t end = 0;
    JsonSlice key;   // member name, when the parent is an object
    JsonSlice text;  // content of a string, spelling of a number
};

// Bytes that are no UTF-8.
enum class JsonUtf8 {
    kStrict,  // are an error
    kRaw,     // are kept, so that program arguments cross the wire as they are
};

// Nesting of the deepest value that is read; the specification needs 9.
inline constexpr size_t kMaxJsonDepth = 64;
// Most values in one document; a real one has some 3000.
inline constexpr size_t kMaxJsonValues = size_t{1} << 20U;

class JsonReader;

// A value in a document, or no value. Cheap to copy; valid as long as its reader.
class JsonValue {
 public:
    JsonValue() = default;
    JsonValue(JsonReader* reader, uint32_t index) : reader_(reader), index_(index) {}

    // False for a property that is absent or null.
    [[nodiscard]] bool exists() const { return reader_ != nullptr; }
    [[nodiscard]] JsonReader* reader() const { return reader_; }
    [[nodiscard]] JsonType type() const;
    // Content of a string, spelling of a number.
    [[nodiscard]] std::string_view text() const;
    // Name of the member whose value this is.
    [[nodiscard]] std::string_view key() const;
    // RFC 6901, made safe for a message; "" is the document.
    [[nodiscard]] std::string pointer() const;

    // True when the value is of `type`; else fails.
    [[nodiscard]] bool expect(JsonType type) const;
    // Fails with "POINTER: `rule`".
    void fail(std::string_view rule) const;
    // Adds the warning "POINTER: `text`".
    void warn(std::string_view text) const;
    // How many elements or members there are, counted up to `most`.
    [[nodiscard]] size_t countChildren(size_t most) const;
    // Element `index` of an array, which must have it.
    [[nodiscard]] JsonValue element(size_t index) const;

    // Calls `function(JsonValue)` for each element or member, in order, until something failed.
    template <typename F>
    void forEach(F function) const;

 private:
    friend class JsonObject;
    JsonReader* reader_ = nullptr;
    uint32_t index_ = 0;
};

// The document, its buffer, and the first failure.
class JsonReader {
 public:
    // Parses `text`. Fails with "invalid JSON at byte N: reason", N counted from 0, on anything
    // that RFC 8259 does not allow (a byte order mark and text after the document too), on nesting
    // deeper than kMaxJsonDepth, and on more than kMaxConfigBytes or kMaxJsonValues.
    // `warnings` may be null; it must outlive the reader.
    static base::Result<JsonReader> parse(std::string_view text, JsonUtf8 utf8,
                                          Source source = Source::kBundle,
                                          Warnings* warnings = nullptr);

    [[nodiscard]] JsonValue root() { return {this, 0}; }
    [[nodiscard]] Source source() const { return source_; }
    [[nodiscard]] bool failed() const { return failure_.has_value(); }
    // The failure as an error. Only when failed().
    [[nodiscard]] base::Error takeFailure();

    void fail(std::string_view pointer, std::string_view rule);
    void warn(std::string_view pointer, std::string_view text);

    [[nodiscard]] const JsonNode& node(uint32_t index) const { return nodes_[index]; }
    [[nodiscard]] std::string_view view(JsonSlice slice) const {
        return std::string_view(buffer_).substr(slice.at, slice.size);
    }

 private:
    std::string buffer_;
    std::vector<JsonNode> nodes_;
    Source source_ = Source::kBundle;
    Warnings* warnings_ = nullptr;
    std::optional<std::string> failure_;
};

template <typename F>
void JsonValue::forEach(F function) const {
    const uint32_t end = reader_->node(index_).end;
    for (uint32_t at = index_ + 1; at < end && !reader_->failed(); at = reader_->node(at).end) {
        function(JsonValue(reader_, at));
    }
}

// decode(value, target) fills `target` from `value` or fails. These are for the plain types; each
// parse_*.cc adds those of its structs. Those that only one file needs are `static` and not in an
// unnamed namespace: the templates below find them by their arguments, and that does not look
// there.
void decode(JsonValue value, bool& target);
void decode(JsonValue value, std::string& target);  // a NUL byte in it fails

// Why `text` is no integer of a type with these properties; for messages.
void failInteger(JsonValue value, bool is_signed, size_t bits);

template <std::integral T>
void decode(JsonValue value, T& target) {
    if (!value.expect(JsonType::kNumber)) return;
    const std::string_view text = value.text();
    T number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size()) {
        failInteger(value, std::is_signed_v<T>, sizeof(T) * 8);
        return;
    }
    target = number;
}

template <typename T>
void decode(JsonValue value, std::optional<T>& target) {
    decode(value, target.emplace());
}

template <typename T>
void decode(JsonValue value, std::vector<T>& target) {
    // Enough for real lists; a hostile one does not get memory for what may not even be of its
    // type.
    constexpr size_t kMostReserved = 512;
    if (!value.expect(JsonType::kArray)) return;
    target.clear();
    target.reserve(value.countChildren(kMostReserved));
    value.forEach([&](JsonValue element) { decode(element, target.emplace_back()); });
}

// Member names may not be empty nor hold a NUL byte.
void checkMapKey(JsonValue member);

template <typename T>
void decode(JsonValue value, std::map<std::string, T>& target) {
    if (!value.expect(JsonType::kObject)) return;
    target.clear();
    value.forEach([&](JsonValue member) {
        checkMapKey(member);
        if (member.type() == JsonType::kNull) return;
        T item{};
        decode(member, item);
        // Of two members of one name the last counts.
        target.insert_or_assign(std::string(member.key()), std::move(item));
    });
}

// A value that must be an object, and access to its properties by name. Unknown properties are
// never looked at; of two of one name the last counts; null is absent.
class JsonObject {
 public:
    explicit JsonObject(JsonValue value) {
        if (value.exists() && value.expect(JsonType::kObject)) value_ = value;
    }

    [[nodiscard]] JsonValue find(std::string_view name) const;

    // Decodes property `name` into `target`; false, and nothing done, when it is absent.
    template <typename T>
    bool get(std::string_view name, T& target) const {
        const JsonValue value = find(name);
        if (!value.exists()) return false;
        decode(value, target);
        return true;
    }

    // The same; an absent property is a failure.
    template <typename T>
    bool require(std::string_view name, T& target) const {
        if (get(name, target)) return true;
        missing(name);
        return false;
    }

    // Fails with "POINTER/`name`: `rule`", whether the property is there or not.
    void fail(std::string_view name, std::string_view rule) const;
    void missing(std::string_view name) const;
    [[nodiscard]] bool failed() const { return !value_.exists() || value_.reader()->failed(); }

 private:
    JsonValue value_;
};

// `text` for use in a message: short, without control bytes, visible when empty.
std::string shown(std::string_view text);

}  // namespace arca::spec

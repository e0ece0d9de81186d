#include "spec/json_reader.h"

#include <algorithm>

#include "base/strings.h"
#include "spec/json_parser.h"

namespace arca::spec {
namespace {

// One part of a JSON pointer (RFC 6901).
std::string pointerPart(std::string_view name) {
    std::string out;
    for (const char c : name.substr(0, 128)) {
        if (c == '~') {
            out += "~0";
        } else if (c == '/') {
            out += "~1";
        } else {
            out += c;
        }
    }
    return base::printable(out);
}

}  // namespace

std::string_view jsonTypeName(JsonType type) {
    switch (type) {
        case JsonType::kNull:
            return "null";
        case JsonType::kFalse:
        case JsonType::kTrue:
            return "a boolean";
        case JsonType::kNumber:
            return "a number";
        case JsonType::kString:
            return "a string";
        case JsonType::kArray:
            return "an array";
        case JsonType::kObject:
            return "an object";
    }
    return "a value";
}

std::string shown(std::string_view text) {
    constexpr size_t kLongest = 64;
    if (text.empty()) return "\"\"";
    if (text.size() <= kLongest) return base::printable(text);
    size_t size = kLongest;
    // Not in the middle of a UTF-8 sequence.
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0U) == 0x80) --size;
    return base::printable(text.substr(0, size)) + "...";
}

JsonType JsonValue::type() const {
    return reader_->node(index_).type;
}

std::string_view JsonValue::text() const {
    return reader_->view(reader_->node(index_).text);
}

std::string_view JsonValue::key() const {
    return reader_->view(reader_->node(index_).key);
}

std::string JsonValue::pointer() const {
    std::vector<std::string> parts;
    for (uint32_t at = index_; at != 0; at = reader_->node(at).parent) {
        const uint32_t parent = reader_->node(at).parent;
        if (reader_->node(parent).type == JsonType::kObject) {
            parts.push_back(pointerPart(reader_->view(reader_->node(at).key)));
            continue;
        }
        size_t position = 0;
        for (uint32_t other = parent + 1; other != at; other = reader_->node(other).end) ++position;
        parts.push_back(std::to_string(position));
    }
    std::string out;
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) out += "/" + *part;
    return out;
}

bool JsonValue::expect(JsonType wanted) const {
    const JsonType actual = type();
    if (actual == wanted) return true;
    // The name of either boolean type is the same.
    fail("must be " + std::string(jsonTypeName(wanted)) + ", not " +
         std::string(jsonTypeName(actual)));
    return false;
}

void JsonValue::fail(std::string_view rule) const {
    if (!reader_->failed()) reader_->fail(pointer(), rule);
}

void JsonValue::warn(std::string_view text) const {
    reader_->warn(pointer(), text);
}

size_t JsonValue::countChildren(size_t most) const {
    const uint32_t end = reader_->node(index_).end;
    size_t count = 0;
    for (uint32_t at = index_ + 1; at < end && count < most; at = reader_->node(at).end) ++count;
    return count;
}

JsonValue JsonValue::element(size_t index) const {
    uint32_t at = index_ + 1;
    for (size_t i = 0; i < index; ++i) at = reader_->node(at).end;
    return {reader_, at};
}

base::Result<JsonReader> JsonReader::parse(std::string_view text, JsonUtf8 utf8, Source source,
                                           Warnings* warnings) {
    if (text.size() > kMaxConfigBytes) {
        return base::fail(base::Code::kInvalidArgument,
                          "larger than the limit of " + std::to_string(kMaxConfigBytes) + " bytes");
    }
    JsonReader reader;
    reader.source_ = source;
    reader.warnings_ = warnings;
    reader.buffer_ = text;
    JsonParser parser(reader.buffer_, reader.nodes_, utf8);
    if (!parser.run()) return base::fail(base::Code::kInvalidArgument, parser.failure());
    return reader;
}

base::Error JsonReader::takeFailure() {
    return {base::Code::kInvalidArgument, std::move(failure_).value_or("unknown failure")};
}

void JsonReader::fail(std::string_view pointer, std::string_view rule) {
    if (failure_) return;
    failure_ =
        (pointer.empty() ? "the document" : std::string(pointer) + ":") + " " + std::string(rule);
}

void JsonReader::warn(std::string_view pointer, std::string_view text) {
    if (warnings_ != nullptr && !failure_) {
        warnings_->push_back(std::string(pointer) + ": " + std::string(text));
    }
}

void decode(JsonValue value, bool& target) {
    if (value.type() != JsonType::kFalse && !value.expect(JsonType::kTrue)) return;
    target = value.type() == JsonType::kTrue;
}

void decode(JsonValue value, std::string& target) {
    if (!value.expect(JsonType::kString)) return;
    const std::string_view text = value.text();
    if (text.find('\0') != std::string_view::npos) {
        value.fail("must not contain a NUL byte");
        return;
    }
    target = text;
}

void failInteger(JsonValue value, bool is_signed, size_t bits) {
    const std::string_view text = value.text();
    if (text.find_first_of(".eE") != std::string_view::npos) {
        value.fail("must be an integer, not " + shown(text));
    } else if (!is_signed && text.front() == '-') {
        value.fail("must not be negative, is " + shown(text));
    } else {
        value.fail(shown(text) + " does not fit " + (is_signed ? "int" : "uint") +
                   std::to_string(bits));
    }
}

void checkMapKey(JsonValue member) {
    if (member.key().empty()) member.fail("a name must not be empty");
    if (member.key().find('\0') != std::string_view::npos) {
        member.fail("a name must not contain a NUL byte");
    }
}

JsonValue JsonObject::find(std::string_view name) const {
    if (!value_.exists()) return {};
    const JsonReader& reader = *value_.reader();
    JsonValue found;
    const uint32_t end = reader.node(value_.index_).end;
    for (uint32_t at = value_.index_ + 1; at < end; at = reader.node(at).end) {
        if (reader.view(reader.node(at).key) == name) found = JsonValue(value_.reader(), at);
    }
    if (found.exists() && found.type() == JsonType::kNull) return {};
    return found;
}

void JsonObject::fail(std::string_view name, std::string_view rule) const {
    if (failed()) return;
    value_.reader()->fail(value_.pointer() + "/" + pointerPart(name), rule);
}

void JsonObject::missing(std::string_view name) const {
    fail(name, "is required");
}

}  // namespace arca::spec

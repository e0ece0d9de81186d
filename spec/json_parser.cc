#include "spec/json_parser.h"

#include <algorithm>
#include <array>

#include "base/strings.h"

namespace arca::spec {
namespace {

// What a byte inside of a string literal asks for.
enum class ByteKind : uint8_t { kPlain, kQuote, kBackslash, kControl, kHigh };

constexpr std::array<ByteKind, 256> makeByteKinds() {
    std::array<ByteKind, 256> kinds{};
    for (size_t i = 0; i < 0x20; ++i) kinds[i] = ByteKind::kControl;
    for (size_t i = 0x80; i < 0x100; ++i) kinds[i] = ByteKind::kHigh;
    kinds['"'] = ByteKind::kQuote;
    kinds['\\'] = ByteKind::kBackslash;
    return kinds;
}
constexpr std::array<ByteKind, 256> kByteKinds = makeByteKinds();

bool isDigit(char c) {
    return c >= '0' && c <= '9';
}

JsonSlice slice(size_t from, size_t to) {
    return {static_cast<uint32_t>(from), static_cast<uint32_t>(to - from)};
}

}  // namespace

bool JsonParser::run() {
    // The offsets of JsonSlice have 32 bits.
    if (size_ > kMaxConfigBytes) return fail(kMaxConfigBytes, "the document is too large");
    // Real documents have a value for some 12 to 16 bytes.
    nodes_.reserve(size_ / 12 + 16);
    skipSpace();
    if (!parseValue(0, {}, 1)) return false;
    skipSpace();
    if (!atEnd()) return fail(at_, "text after the document");
    return true;
}

bool JsonParser::parseValue(uint32_t parent, JsonSlice key, size_t depth) {
    if (nodes_.size() >= kMaxJsonValues) {
        return fail(at_, "more than " + std::to_string(kMaxJsonValues) + " values");
    }
    const auto self = static_cast<uint32_t>(nodes_.size());
    JsonNode& node = nodes_.emplace_back();
    node.parent = parent;
    node.key = key;
    node.end = self + 1;
    switch (peek()) {
        case '"':
            node.type = JsonType::kString;
            return parseString(node.text);
        case '{':
            return parseContainer(self, JsonType::kObject, depth);
        case '[':
            return parseContainer(self, JsonType::kArray, depth);
        case 't':
            node.type = JsonType::kTrue;
            return parseWord("true");
        case 'f':
            node.type = JsonType::kFalse;
            return parseWord("false");
        case 'n':
            return parseWord("null");
        default:
            node.type = JsonType::kNumber;
            return parseNumber(node.text);
    }
}

bool JsonParser::parseContainer(uint32_t self, JsonType type, size_t depth) {
    if (depth > kMaxJsonDepth) {
        return fail(at_, "nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    }
    nodes_[self].type = type;
    const bool is_object = type == JsonType::kObject;
    const char close = is_object ? '}' : ']';
    ++at_;
    skipSpace();
    bool more = peek() != close;
    while (more) {
        if (!(is_object ? parseMember(self, depth) : parseValue(self, {}, depth + 1))) return false;
        skipSpace();
        more = peek() == ',';
        if (more) {
            ++at_;
            skipSpace();
        } else if (peek() != close) {
            return unexpected(is_object ? "',' or '}'" : "',' or ']'");
        }
    }
    ++at_;
    nodes_[self].end = static_cast<uint32_t>(nodes_.size());
    return true;
}

bool JsonParser::parseMember(uint32_t self, size_t depth) {
    if (peek() != '"') return unexpected("a property name in double quotes");
    JsonSlice key;
    if (!parseString(key)) return false;
    skipSpace();
    if (peek() != ':') return unexpected("':'");
    ++at_;
    skipSpace();
    return parseValue(self, key, depth + 1);
}

bool JsonParser::parseString(JsonSlice& out) {
    const size_t start = ++at_;
    bool high = false;
    const auto scan = [&] {
        while (at_ < size_) {
            const ByteKind kind = kByteKinds[static_cast<unsigned char>(buffer_[at_])];
            if (kind == ByteKind::kHigh) {
                high = true;
            } else if (kind != ByteKind::kPlain) {
                return;
            }
            ++at_;
        }
    };
    scan();
    size_t to = at_;
    while (peek() == '\\') {
        if (!parseEscape(to)) return false;
        const size_t from = at_;
        scan();
        // The text moves to the left, over what the escape took more than its meaning.
        to = static_cast<size_t>(std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(from),
                                           buffer_.begin() + static_cast<std::ptrdiff_t>(at_),
                                           buffer_.begin() + static_cast<std::ptrdiff_t>(to)) -
                                 buffer_.begin());
    }
    if (atEnd()) return fail(start - 1, "the string has no end");
    if (peek() != '"') return fail(at_, "a control character in a string must be escaped");
    if (high && utf8_ == JsonUtf8::kStrict &&
        !base::isUtf8(std::string_view(buffer_).substr(start, to - start))) {
        return fail(start - 1, "the string is not UTF-8");
    }
    ++at_;
    out = slice(start, to);
    return true;
}

bool JsonParser::parseEscape(size_t& to) {
    const size_t start = at_++;
    const char kind = peek();
    ++at_;
    switch (kind) {
        case '"':
        case '\\':
        case '/':
            buffer_[to++] = kind;
            return true;
        case 'b':
            buffer_[to++] = '\b';
            return true;
        case 'f':
            buffer_[to++] = '\f';
            return true;
        case 'n':
            buffer_[to++] = '\n';
            return true;
        case 'r':
            buffer_[to++] = '\r';
            return true;
        case 't':
            buffer_[to++] = '\t';
            return true;
        case 'u':
            break;
        default:
            return fail(start, "unknown escape in a string");
    }
    uint32_t code = 0;
    if (!parseHex4(code)) return fail(start, "\\u needs four hexadecimal digits");
    if (code >= 0xdc00 && code <= 0xdfff) return fail(start, "half of a surrogate pair");
    if (code >= 0xd800 && code <= 0xdbff) {
        uint32_t low = 0;
        const bool escaped = peek() == '\\' && at_ + 1 < size_ && buffer_[at_ + 1] == 'u';
        if (!escaped) return fail(start, "half of a surrogate pair");
        at_ += 2;
        if (!parseHex4(low)) return fail(start, "\\u needs four hexadecimal digits");
        if (low < 0xdc00 || low > 0xdfff) return fail(start, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xd800) << 10U) + (low - 0xdc00);
    }
    putUtf8(to, code);
    return true;
}

bool JsonParser::parseHex4(uint32_t& out) {
    out = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
        const char c = peek();
        uint32_t digit = 0;
        if (isDigit(c)) {
            digit = static_cast<uint32_t>(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = static_cast<uint32_t>(c - 'a' + 10);
        } else if (c >= 'A' && c <= 'F') {
            digit = static_cast<uint32_t>(c - 'A' + 10);
        } else {
            return false;
        }
        out = out * 16 + digit;
    }
    return true;
}

void JsonParser::putUtf8(size_t& to, uint32_t code_point) {
    const auto put = [&](uint32_t byte) { buffer_[to++] = static_cast<char>(byte); };
    if (code_point < 0x80) {
        put(code_point);
    } else if (code_point < 0x800) {
        put(0xc0U | (code_point >> 6U));
        put(0x80U | (code_point & 0x3fU));
    } else if (code_point < 0x10000) {
        put(0xe0U | (code_point >> 12U));
        put(0x80U | ((code_point >> 6U) & 0x3fU));
        put(0x80U | (code_point & 0x3fU));
    } else {
        put(0xf0U | (code_point >> 18U));
        put(0x80U | ((code_point >> 12U) & 0x3fU));
        put(0x80U | ((code_point >> 6U) & 0x3fU));
        put(0x80U | (code_point & 0x3fU));
    }
}

bool JsonParser::parseNumber(JsonSlice& out) {
    const size_t start = at_;
    if (peek() == '-') ++at_;
    if (at_ == start && !isDigit(peek())) return unexpected("a value");
    if (peek() == '0') {
        ++at_;
        if (isDigit(peek())) return fail(start, "a number must not begin with 0");
    } else if (!skipDigits("a digit")) {
        return false;
    }
    if (peek() == '.') {
        ++at_;
        if (!skipDigits("a digit after '.'")) return false;
    }
    if (peek() == 'e' || peek() == 'E') {
        ++at_;
        if (peek() == '+' || peek() == '-') ++at_;
        if (!skipDigits("a digit in the exponent")) return false;
    }
    out = slice(start, at_);
    return true;
}

bool JsonParser::skipDigits(std::string_view what) {
    if (!isDigit(peek())) return unexpected(what);
    while (isDigit(peek())) ++at_;
    return true;
}

bool JsonParser::parseWord(std::string_view word) {
    if (std::string_view(buffer_).substr(at_, word.size()) != word) return unexpected("a value");
    at_ += word.size();
    return true;
}

void JsonParser::skipSpace() {
    while (at_ < size_) {
        const char c = buffer_[at_];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return;
        ++at_;
    }
}

bool JsonParser::fail(size_t at, std::string_view reason) {
    failure_ = "invalid JSON at byte " + std::to_string(at) + ": " + std::string(reason);
    return false;
}

bool JsonParser::unexpected(std::string_view expected) {
    std::string found = "the end";
    if (!atEnd()) {
        const bool ascii = static_cast<unsigned char>(peek()) < 0x80;
        found = ascii ? "'" + base::printable({&buffer_[at_], 1}) + "'" : "a byte above 0x7f";
    }
    return fail(at_, "expected " + std::string(expected) + ", found " + found);
}

}  // namespace arca::spec

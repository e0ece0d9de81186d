// The JSON grammar (RFC 8259): text in, a flat list of nodes out.
//
// Internal to spec/: only JsonReader uses it. Escapes are resolved inside the buffer itself, which
// works because a resolved escape is never longer than its spelling.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spec/json_reader.h"

namespace arca::spec {

class JsonParser {
 public:
    // `buffer` holds the text and is changed; the nodes refer to places in it.
    JsonParser(std::string& buffer, std::vector<JsonNode>& nodes, JsonUtf8 utf8)
        : buffer_(buffer), nodes_(nodes), utf8_(utf8), size_(buffer.size()) {}

    // False on the first byte that breaks a rule; then failure() says which.
    bool run();
    [[nodiscard]] const std::string& failure() const { return failure_; }

 private:
    bool parseValue(uint32_t parent, JsonSlice key, size_t depth);
    bool parseContainer(uint32_t self, JsonType type, size_t depth);
    bool parseMember(uint32_t self, size_t depth);
    bool parseString(JsonSlice& out);
    bool parseEscape(size_t& to);
    bool parseHex4(uint32_t& out);
    bool parseNumber(JsonSlice& out);
    bool parseWord(std::string_view word);
    bool skipDigits(std::string_view what);
    void putUtf8(size_t& to, uint32_t code_point);
    void skipSpace();
    [[nodiscard]] bool atEnd() const { return at_ >= size_; }
    // The byte at the cursor; 0 at the end. (A 0 byte is valid nowhere outside of strings.)
    [[nodiscard]] char peek() const { return atEnd() ? '\0' : buffer_[at_]; }
    bool fail(size_t at, std::string_view reason);
    // Fails with what was expected and what was found at the cursor.
    bool unexpected(std::string_view expected);

    std::string& buffer_;
    std::vector<JsonNode>& nodes_;
    JsonUtf8 utf8_;
    size_t size_;
    size_t at_ = 0;
    std::string failure_;
};

}  // namespace arca::spec

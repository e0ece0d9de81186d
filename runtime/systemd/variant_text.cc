#include "runtime/systemd/variant_text.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>

#include "base/strings.h"

namespace arca::runtime::systemd {
namespace {

using base::Code;
using base::fail;
using base::Result;

class Reader {
 public:
    explicit Reader(std::string_view text) : rest_(base::trim(text)) {}

    [[nodiscard]] bool done() const { return rest_.empty(); }

    bool take(char wanted) {
        skipBlanks();
        if (!rest_.starts_with(wanted)) return false;
        rest_.remove_prefix(1);
        return true;
    }

    // Up to a blank or a mark.
    std::string_view word() {
        skipBlanks();
        const size_t end = std::min(rest_.find_first_of(" \t,[]'\""), rest_.size());
        const std::string_view found = rest_.substr(0, end);
        rest_.remove_prefix(end);
        return found;
    }

    [[nodiscard]] bool atQuote() {
        skipBlanks();
        return rest_.starts_with('\'') || rest_.starts_with('"');
    }

    // False without an end.
    bool quoted(std::string& out) {
        const char mark = rest_.front();
        for (size_t i = 1; i < rest_.size(); ++i) {
            if (rest_[i] == mark) {
                rest_.remove_prefix(i + 1);
                return true;
            }
            if (rest_[i] == '\\' && ++i == rest_.size()) return false;
            out += rest_[i];
        }
        return false;
    }

 private:
    void skipBlanks() {
        rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t"), rest_.size()));
    }

    std::string_view rest_;
};

template <typename T>
std::optional<Value> integer(std::string_view word) {
    const auto number = base::parseNumber<T>(word);
    if (!number) return std::nullopt;
    return Value(*number);
}

std::optional<Value> real(std::string_view word) {
    const std::string text(word);
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    if (text.empty() || end != text.c_str() + text.size()) return std::nullopt;
    return Value(number);
}

std::optional<Value> number(std::string_view type, std::string_view word) {
    if (type == "byte") return integer<uint8_t>(word);
    if (type == "int16") return integer<int16_t>(word);
    if (type == "uint16") return integer<uint16_t>(word);
    if (type == "int32") return integer<int32_t>(word);
    if (type == "uint32") return integer<uint32_t>(word);
    if (type == "int64") return integer<int64_t>(word);
    if (type == "uint64") return integer<uint64_t>(word);
    if (type == "double") return real(word);
    return std::nullopt;
}

std::optional<Value> list(Reader& reader) {
    std::vector<std::string> items;
    while (!reader.take(']')) {
        if (!items.empty() && !reader.take(',')) return std::nullopt;
        if (!reader.atQuote()) return std::nullopt;
        if (!reader.quoted(items.emplace_back())) return std::nullopt;
    }
    return Value(std::move(items));
}

std::optional<Value> value(Reader& reader) {
    if (reader.take('[')) return list(reader);
    if (reader.atQuote()) {
        std::string text;
        if (!reader.quoted(text)) return std::nullopt;
        return Value(std::move(text));
    }
    const std::string_view first = reader.word();
    if (first == "true" || first == "false") return Value(first == "true");
    if (first == "@as") return reader.take('[') ? list(reader) : std::nullopt;
    if (first == "string") return reader.atQuote() ? value(reader) : std::nullopt;
    if (!reader.done()) return number(first, reader.word());
    if (auto whole = integer<int32_t>(first)) return whole;
    return first.find('.') == std::string_view::npos ? std::nullopt : real(first);
}

}  // namespace

Result<Value> parseVariantText(std::string_view text) {
    Reader reader(text);
    auto found = value(reader);
    if (found && reader.done()) return std::move(*found);
    return fail(Code::kInvalidArgument,
                "\"" + base::printable(text) +
                    "\" is no value such as true, 'text', uint64 5 or ['a', 'b']");
}

}  // namespace arca::runtime::systemd

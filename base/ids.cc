#include "base/ids.h"

#include "base/error_texts.h"
#include "base/strings.h"

namespace arca::base {

Result<> validateId(std::string_view id) {
    if (id.empty()) return fail(Code::kInvalidArgument, texts::kIdEmpty);
    const std::string shown = ": \"" + printable(id.substr(0, 64)) + "\"";
    if (id == "." || id == "..")
        return fail(Code::kInvalidArgument, texts::kInvalidIdFormat + shown);
    if (id.size() > kMaxIdLength) {
        return fail(Code::kInvalidArgument, std::string(texts::kInvalidIdFormat) +
                                                ": longer than " + std::to_string(kMaxIdLength) +
                                                " bytes");
    }
    for (const char c : id) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool other = (c >= '0' && c <= '9') || c == '_' || c == '+' || c == '.' || c == '-';
        if (!letter && !other) return fail(Code::kInvalidArgument, texts::kInvalidIdFormat + shown);
    }
    return {};
}

}  // namespace arca::base

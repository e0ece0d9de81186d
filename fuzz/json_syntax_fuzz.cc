// The JSON grammar, against another implementation: the same texts are accepted, with the same
// strings in them.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "spec/json_reader.h"

namespace {

using namespace arca::spec;

// Compares trees. The other parser keeps one member of each name, so only the last is looked at.
void compare(JsonValue ours, const nlohmann::json& theirs) {
    switch (ours.type()) {
        case JsonType::kString:
            if (ours.text() != theirs.get<std::string>()) std::abort();
            return;
        case JsonType::kArray: {
            size_t index = 0;
            ours.forEach([&](JsonValue element) { compare(element, theirs.at(index++)); });
            if (index != theirs.size()) std::abort();
            return;
        }
        case JsonType::kObject:
            for (const auto& [name, value] : theirs.items()) {
                const JsonValue member = JsonObject(ours).find(name);
                if (member.exists() == value.is_null()) std::abort();
                if (member.exists()) compare(member, value);
            }
            return;
        case JsonType::kNumber:
            if (!theirs.is_number()) std::abort();
            return;
        case JsonType::kNull:
            if (!theirs.is_null()) std::abort();
            return;
        case JsonType::kTrue:
        case JsonType::kFalse:
            if ((ours.type() == JsonType::kTrue) != theirs.get<bool>()) std::abort();
            return;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    auto ours = JsonReader::parse(text, JsonUtf8::kStrict);
    const auto theirs = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (ours) {
        // Numbers beyond double are an error there and a matter of the property's type here.
        if (!theirs.is_discarded()) compare(ours->root(), theirs);
        if (theirs.is_discarded() && text.find_first_of("0123456789") == std::string_view::npos) {
            std::abort();
        }
        return 0;
    }
    if (theirs.is_discarded()) return 0;
    // A limit of ours, the byte order mark that the other one skips, or the NUL byte that it takes
    // for the end of the text.
    const std::string& reason = ours.error().message();
    const bool known = reason.find("nested deeper") != std::string::npos ||
                       reason.find("larger than") != std::string::npos ||
                       text.find('\0') != std::string_view::npos ||
                       text.substr(0, 3) == "\xef\xbb\xbf";
    if (!known) std::abort();
    return 0;
}

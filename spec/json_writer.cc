#include "spec/json_writer.h"

#include "base/strings.h"

namespace arca::spec {

void JsonWriter::comma() {
    if (text_.empty()) return;
    const char last = text_.back();
    if (last != '{' && last != '[' && last != ':') text_ += ',';
}

void JsonWriter::name(std::string_view name) {
    comma();
    quoted(name);
    text_ += ':';
}

void JsonWriter::string(std::string_view value) {
    comma();
    quoted(value);
}

void JsonWriter::quoted(std::string_view value) {
    constexpr char kHex[] = "0123456789abcdef";
    text_ += '"';
    size_t plain = 0;  // start of what was not copied yet
    for (size_t at = 0; at < value.size(); ++at) {
        const char c = value[at];
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\') continue;
        if (byte >= 0x80) {
            const size_t length = base::utf8SequenceLength(value.substr(at));
            if (length != 0 || utf8_ == JsonUtf8::kRaw) {
                at += length == 0 ? 0 : length - 1;
                continue;
            }
        }
        text_ += value.substr(plain, at - plain);
        plain = at + 1;
        if (byte >= 0x80) {
            text_ += "\\ufffd";
        } else if (c == '"' || c == '\\') {
            text_ += '\\';
            text_ += c;
        } else if (c == '\n') {
            text_ += "\\n";
        } else if (c == '\t') {
            text_ += "\\t";
        } else {
            text_ += "\\u00";
            text_ += kHex[byte >> 4U];
            text_ += kHex[byte & 0xfU];
        }
    }
    text_ += value.substr(plain);
    text_ += '"';
}

std::string indentJson(std::string_view json, std::string_view indent) {
    std::string out;
    out.reserve(json.size() * 2);
    size_t depth = 0;
    bool in_string = false;
    const auto newLine = [&] {
        out += '\n';
        for (size_t i = 0; i < depth; ++i) out += indent;
    };
    for (size_t at = 0; at < json.size(); ++at) {
        const char c = json[at];
        if (in_string) {
            out += c;
            if (c == '\\' && at + 1 < json.size()) {
                out += json[++at];
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '{' || c == '[') {
            out += c;
            if (at + 1 < json.size() && (json[at + 1] == '}' || json[at + 1] == ']')) {
                out += json[++at];
                continue;
            }
            ++depth;
            newLine();
        } else if (c == '}' || c == ']') {
            --depth;
            newLine();
            out += c;
        } else {
            out += c;
            if (c == '"') in_string = true;
            if (c == ',') newLine();
            if (c == ':') out += ' ';
        }
    }
    out += '\n';
    return out;
}

}  // namespace arca::spec

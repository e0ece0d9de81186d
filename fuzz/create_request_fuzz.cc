// CreateProcess: ids, both layouts of its fields, and the options.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "base/strings.h"
#include "spec/parse.h"
#include "vminitd/create_request.h"

namespace {

void check(bool claim) {
    if (!claim) std::abort();
}

bool isName(const std::string& id) {
    return !id.empty() && id != "." && id != ".." && id.find('/') == std::string::npos &&
           id.find('\0') == std::string::npos;
}

}  // namespace

// The first byte says which fields there are; the rest is split at 0xff, which is in no text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace arca;
    if (size == 0) return 0;
    const uint8_t which = data[0];
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto parts = base::split(text, '\xff');
    const auto part = [&](size_t i) { return std::string(i < parts.size() ? parts[i] : ""); };

    vminitd::ProcessKey key{part(0), std::nullopt};
    if ((which & 1U) != 0) key.container_id = part(1);
    if (vminitd::checkKey(key))
        check(isName(key.id) && key.container_id && isName(*key.container_id));

    const auto optional = [&](unsigned bit, size_t i) {
        return (which & bit) != 0 ? std::optional(part(i)) : std::nullopt;
    };
    const auto fields = vminitd::readCreateFields(optional(2, 2), part(3), optional(4, 4));
    check(fields.configuration == part(2) || fields.configuration == part(3));
    if (const auto options = vminitd::parseCreateOptions(fields.options)) {
        check(options->preserve_fds >= 0);
        check(options->bundle.empty() || options->bundle.front() == '/');
    }
    (void)spec::parseSpec(fields.configuration, spec::Source::kWire);
    return 0;
}

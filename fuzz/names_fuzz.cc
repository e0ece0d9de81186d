// Container ids, signal names, sysctl keys and paths: small words from command lines.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/signals.h"
#include "base/strings.h"
#include "spec/sysctl.h"

namespace {

void check(bool claim) {
    if (!claim) std::abort();
}

// True when `path`, taken from some directory, cannot leave it.
bool staysBelow(std::string_view path) {
    if (path.empty() || path.front() == '/') return false;
    for (const std::string_view part : arca::base::split(path, '/')) {
        if (part.empty() || part == "." || part == "..") return false;
    }
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace arca;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (base::validateId(text)) {
        check(staysBelow(text) && text.find('/') == std::string_view::npos);
        check(text == base::printable(text) && text.size() <= base::kMaxIdLength);
    }
    if (const auto number = base::parseSignal(text)) {
        check(*number >= 0 && *number <= 64);
        check(base::parseSignal(base::signalName(*number)).value() == *number);
    }
    if (const auto path = spec::sysctlPath(text)) check(staysBelow(*path));
    const std::string clean = base::cleanPath(text);
    check(base::cleanPath(clean) == clean);
    check(text.empty() || (text.front() == '/') == (clean.front() == '/'));
    if (clean.front() == '/') check(clean == "/" || staysBelow(std::string_view(clean).substr(1)));
    return 0;
}

#include "spec/version.h"

#include "base/strings.h"

namespace arca::spec {

bool versionAtLeast(std::string_view version, uint32_t major, uint32_t minor) {
    const auto parts = base::split(version, '.');
    if (parts.size() < 2) return false;
    const auto given_major = base::parseNumber<uint32_t>(parts[0]);
    const auto given_minor = base::parseNumber<uint32_t>(parts[1]);
    if (!given_major || !given_minor) return false;
    return *given_major > major || (*given_major == major && *given_minor >= minor);
}

}  // namespace arca::spec

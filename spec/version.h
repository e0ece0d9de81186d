// Versions that the programs print, and what depends on the version of a configuration.
#pragma once

#include <cstdint>
#include <string_view>

namespace arca::spec {

inline constexpr char kProjectVersion[] = "0.1.0";
inline constexpr char kOciVersionMin[] = "1.0.0";
inline constexpr char kOciVersionMax[] = "1.3.0";

// Whether `version`, a semantic version, is MAJOR.MINOR or later. What comes after does not count:
// 1.3.0-rc.1 already has the text of 1.3. False for what is no version.
bool versionAtLeast(std::string_view version, uint32_t major, uint32_t minor);

}  // namespace arca::spec

// Versions that the programs print.
#pragma once

namespace arca::spec {

inline constexpr char kProjectVersion[] = "0.1.0";
inline constexpr char kOciVersionMin[] = "1.0.0";
inline constexpr char kOciVersionMax[] = "1.2.1";

}  // namespace arca::spec

// How long a driver of guests waits for what, and a name that its parts share.
#pragma once

#include <chrono>

#include "base/strings.h"
#include "runtime/context.h"

namespace arca::runtime {

// Of the monitor, which may itself be waiting for the guest.
inline constexpr std::chrono::seconds kAnswerLimit{30};
// Longer than the monitor's own limit for a boot, whose error says more.
inline constexpr std::chrono::seconds kBootSlack{15};
// The configuration that the guest was given, in the container's folder.
inline constexpr char kGuestConfigFile[] = "guest.json";

// How long a guest has to answer any call but WaitProcess.
inline std::chrono::seconds callLimit() {
    constexpr unsigned kDefault = 60;
    constexpr unsigned kMost = 86400;
    const auto given = base::parseNumber<unsigned>(environmentValue("ARCA_GUEST_SECONDS"));
    return std::chrono::seconds(given && *given > 0 && *given <= kMost ? *given : kDefault);
}

}  // namespace arca::runtime

// The program arca-tap-forwarder: of itself, and as another name of vminitd in a guest.
#pragma once

#include <string_view>
#include <vector>

namespace arca::tap_forwarder {

inline constexpr char kProgramName[] = "arca-tap-forwarder";

// `args`: without argv[0]. Gives the exit code: 0 after SIGTERM or SIGINT, 1 on failure, 2 when it
// was called wrongly. With a program to run it does not come back unless that cannot be executed.
int runForwarder(const std::vector<std::string_view>& args);

}  // namespace arca::tap_forwarder

// The OCI state object as hooks and `state` see it.
#pragma once

#include <string>

#include "spec/spec.h"

namespace arca::spec {

struct State {
    std::string ociVersion;
    std::string id;
    std::string status;  // creating, created, running, paused, stopped
    int pid = 0;         // left out when 0
    std::string bundle;
    Annotations annotations;
};

// One compact line, as given to hooks on stdin. Source: runtime.md, "State".
std::string writeState(const State& state);

}  // namespace arca::spec

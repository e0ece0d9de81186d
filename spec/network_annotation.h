// How a host says in a configuration that it attaches interfaces to a container of a guest: by it
// the hook that starts the forwarder knows, and what the container's start has to wait for.
#pragma once

#include "spec/spec.h"

namespace arca::spec {

inline constexpr char kNetworkAnnotation[] = "io.arca.network";
inline constexpr char kForwardedNetwork[] = "forwarded";

inline bool isNetworkForwarded(const Spec& spec) {
    const auto found = spec.annotations.find(kNetworkAnnotation);
    return found != spec.annotations.end() && found->second == kForwardedNetwork;
}

}  // namespace arca::spec

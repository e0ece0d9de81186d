// Paths of the agent's gRPC calls: ARCA_CONTEXT_RPC("Mount") is that of the guest protocol's Mount,
// ARCA_EXTENSION_RPC("Pause") that of our extension's Pause. Macros, so that they are literals.
#pragma once

#define ARCA_CONTEXT_RPC(name) "/com.apple.containerization.sandbox.v3.SandboxContext/" name
#define ARCA_EXTENSION_RPC(name) "/arca.sandbox.v1.SandboxExtension/" name
#define ARCA_FORWARDER_RPC(name) "/arca.tapforwarder.v1.TAPForwarder/" name

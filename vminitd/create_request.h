// CreateProcess as the agent's own struct, whichever layout it came in.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace arca::vminitd {

// A process of a container, as every process RPC names it.
struct ProcessKey {
    std::string id;
    std::optional<std::string> container_id;  // absent: the sandbox's own root
};

// What this project's command sends in `options`; other hosts never set it.
struct CreateOptions {
    bool from_command = false;  // the field was there: the configuration is a bundle's
    std::string bundle;
    bool no_pivot = false;
    bool no_new_keyring = false;
    int preserve_fds = 0;
    bool ignore_paused = false;
    // Whether cgroups that cannot be had are done without; absent: as the agent's own user is.
    std::optional<bool> rootless;
    std::vector<std::string>
        cgroups;  // of an exec, "[CONTROLLERS:]PATH": below the container's own
    // Of an init: who makes its cgroup. kSystemd: it is there and has the body in it; kNone:
    // nobody, it stays where the body is.
    enum class Cgroup { kAgent, kSystemd, kNone } cgroup = Cgroup::kAgent;
};

struct CreateRequest {
    ProcessKey key;
    std::optional<uint32_t> stdin_port, stdout_port, stderr_port;
    bool has_runtime_path = false;
    std::string configuration;
    CreateOptions options;
    // Told what the process's body warns of, on the loop; may be empty.
    std::function<void(std::string_view)> warned;
};

// Field 6, 7 and 8 of CreateProcessRequest in both of its layouts: before containerization 0.15.1
// number 6 was the configuration and 7 the options. A path never begins with '{'.
struct CreateFields {
    bool has_runtime_path = false;
    std::string configuration;
    std::string options;
};
CreateFields readCreateFields(std::optional<std::string> field6, std::string field7,
                              std::optional<std::string> field8);

// Parses `options`. Empty: the defaults. kInvalidArgument when it is there but not as described.
base::Result<CreateOptions> parseCreateOptions(const std::string& json);

// containerID present, both ids well-formed. kInvalidArgument otherwise.
base::Result<> checkKey(const ProcessKey& key);

}  // namespace arca::vminitd

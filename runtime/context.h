// What every command is given: the global flags in their final form, its own arguments, and the
// descriptors that the caller wants passed on.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/arguments.h"

namespace arca::runtime {

struct Globals {
    std::string root;          // absolute, clean
    bool root_given = false;   // by --root
    bool root_sticky = false;  // below XDG_RUNTIME_DIR, where cleaners spare sticky directories
    bool systemd_cgroup = false;
    bool cgroups_disabled = false;
    std::string rootless;       // "auto", "true" or "false"
    std::string sandbox;        // "local", "vm" or "connect=ADDRESS"; "" when not said here
    std::string configuration;  // --configuration
};

// Descriptors 3..3+count-1 of ours become those of the program.
struct InheritedFds {
    int count = 0;
    std::vector<std::string> env;  // LISTEN_* for the program
};

struct Context {
    Globals globals;
    const Arguments& arguments;
    InheritedFds fds;
};

// Checks the values of global flags and fills in the defaults, from the environment too.
base::Result<Globals> resolveGlobals(const Arguments& globals);

// kInvalidArgument for what is none of the three kinds.
base::Result<> checkSandbox(const std::string& sandbox);

// Checks that the descriptors which --preserve-fds (`count_text`, may be "") and, when
// `listen_fds`, the socket activation variables promise are open. To be called before the program
// opens any: a later one would take the number of one that is missing.
// Source: sd_listen_fds(3); runc's order: activation sockets first.
enum class SocketActivation { kIgnore, kPass };
base::Result<InheritedFds> inheritedFds(std::string_view count_text, SocketActivation activation);

// The state root when no --root is given. For tests `euid`, whether that is a user namespace's
// root, and the two variables ("" = unset) are arguments.
struct RootDefault {
    std::string path;
    bool sticky;
};
RootDefault defaultRoot(unsigned euid, bool in_user_namespace, std::string_view xdg_runtime_dir,
                        std::string_view user);
// The same for this process and its environment.
RootDefault ownDefaultRoot();

// An environment variable, "" when unset.
std::string environmentValue(const char* name);

}  // namespace arca::runtime

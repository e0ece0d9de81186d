// The one table of commands and flags: the parser, --help and the test of the manual read it.
#include <array>

#include "runtime/arguments.h"
#include "runtime/commands/commands.h"

namespace arca::runtime {
namespace {

constexpr FlagKind kBool = FlagKind::kBool;
constexpr FlagKind kText = FlagKind::kText;
constexpr FlagKind kList = FlagKind::kList;

constexpr auto kGlobal = std::to_array<Flag>({
    {"root", 0, kText, "DIR", "where containers' state is kept"},
    {"log", 0, kText, "FILE", "append log lines to FILE instead of writing them to stderr"},
    {"log-format", 0, kText, "FORMAT", "text (default) or json"},
    {"log-level", 0, kText, "LEVEL", "error, warning or debug"},
    {"debug", 0, kBool, "", "log debug lines too"},
    {"sandbox", 0, kText, "KIND", "local (default), vm or connect=ADDRESS"},
    {"configuration", 0, kText, "FILE",
     "the host's configuration; default /etc/arca-runtime/config.json"},
    {"systemd-cgroup", 0, kBool, "", "cgroupsPath is slice:prefix:name, made by systemd"},
    {"cgroup-manager", 0, kText, "KIND", "cgroupfs (default), systemd or disabled"},
    {"rootless", 0, kText, "MODE", "true, false or auto (default)"},
    {"criu", 0, kText, "FILE", "ignored"},
    {"help", 'h', kBool, "", "show help"},
    {"version", 'v', kBool, "", "print the version"},
});

constexpr Flag kBundle{"bundle", 'b', kText, "DIR", "the bundle; default: the working directory"};
constexpr Flag kConfig{"config", 'f', kText, "FILE", "name of the configuration in the bundle"};
constexpr Flag kConsoleSocket{"console-socket", 0, kText, "PATH",
                              "unix socket that receives the terminal's master"};
constexpr Flag kPidfdSocket{"pidfd-socket", 0, kText, "PATH",
                            "unix socket that receives a pidfd of the process"};
constexpr Flag kPidFile{"pid-file", 0, kText, "FILE", "file to write the process id to"};
constexpr Flag kNoPivot{"no-pivot", 0, kBool, "", "move the root mount instead of pivot_root"};
constexpr Flag kNoNewKeyring{"no-new-keyring", 0, kBool, "", "keep the caller's session keyring"};
constexpr Flag kPreserveFds{"preserve-fds", 0, kText, "N",
                            "pass N more descriptors after stdio (and LISTEN_FDS)"};
constexpr Flag kNoSubreaper{"no-subreaper", 0, kBool, "", "do not adopt orphans while waiting"};
constexpr Flag kDetach{"detach", 'd', kBool, "", "return once the process has been started"};

constexpr std::array kCreate = {kBundle,  kConfig,       kConsoleSocket, kPidfdSocket, kPidFile,
                                kNoPivot, kNoNewKeyring, kPreserveFds,   kNoSubreaper};

constexpr auto kRun = std::to_array<Flag>({
    kBundle,
    kConfig,
    kConsoleSocket,
    kPidfdSocket,
    kPidFile,
    kNoPivot,
    kNoNewKeyring,
    kPreserveFds,
    kNoSubreaper,
    kDetach,
    {"keep", 0, kBool, "", "do not delete the container when it has ended"},
});

constexpr auto kExec = std::to_array<Flag>({
    {"process", 'p', kText, "FILE",
     "an OCI process object; the flags about the process are ignored"},
    kConsoleSocket,
    kPidfdSocket,
    kPidFile,
    kPreserveFds,
    kDetach,
    {"cwd", 0, kText, "DIR", "working directory in the container"},
    {"env", 'e', kList, "NAME=VALUE", "add to the environment; may be repeated"},
    {"tty", 't', kBool, "", "give the process a terminal"},
    {"user", 'u', kText, "UID[:GID]", "numbers; UID alone keeps the container's gid"},
    {"additional-gids", 'g', kList, "GID", "add a supplementary group; may be repeated"},
    {"process-label", 0, kText, "LABEL", "SELinux label"},
    {"apparmor", 0, kText, "PROFILE", "AppArmor profile"},
    {"no-new-privs", 0, kBool, "", "set no_new_privs"},
    {"cap", 'c', kList, "CAP", "add a capability; may be repeated"},
    {"cgroup", 0, kList, "[CONTROLLERS:]PATH", "cgroup below the container's; may be repeated"},
    {"ignore-paused", 0, kBool, "", "allow exec in a paused container"},
});

constexpr auto kKill = std::to_array<Flag>({
    {"all", 'a', kBool, "", "signal every process of the container"},
    {"regex", 'r', kBool, "", "the id is a regular expression: signal every container it matches"},
});

constexpr auto kDelete = std::to_array<Flag>({
    {"force", 'f', kBool, "", "kill the container first; an unknown one is no error"},
    {"regex", 'r', kBool, "", "the id is a regular expression: delete every container it matches"},
});

constexpr auto kList_ = std::to_array<Flag>({
    {"format", 'f', kText, "FORMAT", "table (default) or json"},
    {"quiet", 'q', kBool, "", "ids only"},
});

constexpr auto kPs = std::to_array<Flag>({
    {"format", 'f', kText, "FORMAT", "table (default) or json"},
});

constexpr auto kSpec = std::to_array<Flag>({
    {"bundle", 'b', kText, "DIR", "where to write config.json; default: the working directory"},
    {"rootless", 0, kBool, "", "a configuration for a user without privileges"},
});

constexpr auto kUpdate = std::to_array<Flag>({
    {"resources", 'r', kText, "FILE",
     "a LinuxResources object, - is stdin; other flags are ignored"},
    {"blkio-weight", 0, kText, "N", "weight of block I/O, 10 to 1000"},
    {"cpu-period", 0, kText, "US", "length of a period in microseconds"},
    {"cpu-quota", 0, kText, "US", "CPU time in a period in microseconds; -1: unlimited"},
    {"cpu-burst", 0, kText, "US", "unused time that may be saved up, in microseconds"},
    {"cpu-share", 0, kText, "N", "weight of CPU time"},
    {"cpu-rt-period", 0, kText, "US", "realtime period in microseconds"},
    {"cpu-rt-runtime", 0, kText, "US", "realtime CPU time in a period in microseconds"},
    {"cpu-idle", 0, kText, "N", "1: run only when nothing else wants to"},
    {"cpuset-cpus", 0, kText, "LIST", "CPUs, such as 0-2,4"},
    {"cpuset-mems", 0, kText, "LIST", "memory nodes"},
    {"memory", 0, kText, "BYTES", "memory limit; suffix k, m, g; -1: unlimited"},
    {"memory-reservation", 0, kText, "BYTES", "memory reservation or soft limit"},
    {"memory-swap", 0, kText, "BYTES", "limit of memory and swap together; -1: unlimited"},
    {"kernel-memory", 0, kText, "BYTES", "ignored: the kernel has no such limit any more"},
    {"kernel-memory-tcp", 0, kText, "BYTES", "ignored: the kernel has no such limit any more"},
    {"pids-limit", 0, kText, "N", "number of processes; -1: unlimited"},
    {"l3-cache-schema", 0, kText, "SCHEMA", "Intel RDT cache schema (not supported)"},
    {"mem-bw-schema", 0, kText, "SCHEMA", "Intel RDT memory bandwidth schema (not supported)"},
});

constexpr auto kEvents = std::to_array<Flag>({
    {"interval", 0, kText, "DURATION", "time between statistics; default 5s"},
    {"stats", 0, kBool, "", "print statistics once and exit"},
});

constexpr auto kCheckpoint = std::to_array<Flag>({
    {"image-path", 0, kText, "DIR", "where to write the image"},
    {"work-path", 0, kText, "DIR", "where to write logs"},
    {"parent-path", 0, kText, "DIR", "image of an earlier pre-dump"},
    {"leave-running", 0, kBool, "", "do not stop the container"},
    {"tcp-established", 0, kBool, "", "allow open TCP connections"},
    {"tcp-skip-in-flight", 0, kBool, "", "leave out connections being made"},
    {"tcp-close", 0, kBool, "", "close TCP connections"},
    {"link-remap", 0, kBool, "", "allow unlinked files"},
    {"ext-unix-sk", 0, kBool, "", "allow external unix sockets"},
    {"shell-job", 0, kBool, "", "allow shell jobs"},
    {"lazy-pages", 0, kBool, "", "restore memory lazily"},
    {"status-fd", 0, kText, "FD", "where to say that lazy pages are ready"},
    {"page-server", 0, kText, "ADDRESS:PORT", "where to send pages"},
    {"file-locks", 0, kBool, "", "handle file locks"},
    {"pre-dump", 0, kBool, "", "dump memory only"},
    {"manage-cgroups-mode", 0, kText, "MODE", "soft, full, strict or ignore"},
    {"empty-ns", 0, kList, "NAMESPACE", "do not restore this namespace's properties"},
    {"auto-dedup", 0, kBool, "", "deduplicate the image"},
});

constexpr auto kRestore = std::to_array<Flag>({
    kBundle,
    kConsoleSocket,
    kPidFile,
    kNoPivot,
    kNoSubreaper,
    kDetach,
    {"image-path", 0, kText, "DIR", "where the image is"},
    {"work-path", 0, kText, "DIR", "where to write logs"},
    {"tcp-established", 0, kBool, "", "allow open TCP connections"},
    {"tcp-close", 0, kBool, "", "close TCP connections"},
    {"link-remap", 0, kBool, "", "allow unlinked files"},
    {"ext-unix-sk", 0, kBool, "", "allow external unix sockets"},
    {"shell-job", 0, kBool, "", "allow shell jobs"},
    {"lazy-pages", 0, kBool, "", "restore memory lazily"},
    {"file-locks", 0, kBool, "", "handle file locks"},
    {"manage-cgroups-mode", 0, kText, "MODE", "soft, full, strict or ignore"},
    {"empty-ns", 0, kList, "NAMESPACE", "do not restore this namespace's properties"},
    {"auto-dedup", 0, kBool, "", "deduplicate the image"},
    {"lsm-profile", 0, kText, "TYPE:NAME", "LSM profile of the restored processes"},
    {"lsm-mount-context", 0, kText, "CONTEXT", "LSM context of the restored mounts"},
});

constexpr std::string_view kId = "<container-id>";

constexpr auto kCommands = std::to_array<Command>({
    {"create", kId, "create a container and leave it waiting for start", kCreate, 1, 1, false,
     createCommand},
    {"start", kId, "run the program of a created container", {}, 1, 1, false, startCommand},
    {"run", kId, "create and start a container", kRun, 1, 1, false, runCommand},
    {"exec", "<container-id> <command> [arguments...] | -p process.json <container-id>",
     "run another process in a container", kExec, 1, kAnyNumber, true, execCommand},
    {"kill", "<container-id> [signal]", "send a signal (default SIGTERM) to a container", kKill, 1,
     2, true, killCommand},
    {"delete", kId, "delete a container and all that it holds", kDelete, 1, 1, false,
     deleteCommand},
    {"state", kId, "print the state of a container", {}, 1, 1, false, stateCommand},
    {"list", "", "list the containers of a state root", kList_, 0, 0, false, listCommand},
    {"ps", "<container-id> [ps options...]", "list the processes of a container", kPs, 1,
     kAnyNumber, true, psCommand},
    {"pause", kId, "freeze the processes of a container", {}, 1, 1, false, pauseCommand},
    {"resume", kId, "thaw the processes of a container", {}, 1, 1, false, resumeCommand},
    {"update", kId, "change the limits of a container", kUpdate, 1, 1, false, updateCommand},
    {"events", kId, "print statistics and events of a container", kEvents, 1, 1, false,
     eventsCommand},
    {"spec", "", "write a template of config.json", kSpec, 0, 0, false, specCommand},
    {"features", "", "print what this build supports", {}, 0, 0, false, featuresCommand},
    {"checkpoint", kId, "not supported", kCheckpoint, 1, 1, false, checkpointCommand},
    {"restore", kId, "not supported", kRestore, 1, 1, false, restoreCommand},
    {"help", "[command]", "show help", {}, 0, 1, false, helpCommand},
});

}  // namespace

std::span<const Flag> globalFlags() {
    return kGlobal;
}

std::span<const Command> commands() {
    return kCommands;
}

}  // namespace arca::runtime

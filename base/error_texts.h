// Texts that callers of an OCI runtime match on, word for word. They stand here and nowhere else,
// and a test holds each of them.
//
// Who matches what: containerd's runc shim looks for "does not exist" (already deleted) and
// "container not running" (already finished); Docker and podman turn "executable file not found",
// "no such file or directory", "permission denied" and "is a directory" into exit codes 126 and
// 127; CRI-O looks for "container not running" and "no such process". Hence "does not exist" is
// used for an unknown container and for nothing else.
#pragma once

namespace arca::base::texts {

inline constexpr char kContainerDoesNotExist[] = "container does not exist";
inline constexpr char kContainerNotRunning[] = "container not running";
inline constexpr char kContainerNotPaused[] = "container not paused";
inline constexpr char kContainerIdExists[] = "container with given ID already exists";
inline constexpr char kInvalidIdFormat[] = "invalid container ID format";
inline constexpr char kIdEmpty[] = "container id cannot be empty";
inline constexpr char kStartStopped[] = "cannot start a container that has stopped";
inline constexpr char kStartRunning[] = "cannot start an already running container";
inline constexpr char kStartPaused[] = "cannot start a container in the paused state";
inline constexpr char kExecStopped[] = "cannot exec in a stopped container";
inline constexpr char kExecPaused[] =
    "cannot exec in a paused container (use --ignore-paused to override)";
inline constexpr char kExecArgsEmpty[] = "exec args cannot be empty";
inline constexpr char kProcessMissing[] = "process property must not be empty";
inline constexpr char kExecutableNotFound[] = "executable file not found in $PATH";
inline constexpr char kInitStillRunning[] = "container init still running";
inline constexpr char kTtyNeedsConsoleSocket[] =
    "cannot allocate tty if runc will detach without setting console socket";
inline constexpr char kConsoleSocketWithoutTty[] =
    "cannot use console socket if runc will not detach or allocate tty";
inline constexpr char kUnknownSignal[] = "unknown signal";
inline constexpr char kCreateFailedPrefix[] = "runc create failed: ";
inline constexpr char kRunFailedPrefix[] = "runc run failed: ";
inline constexpr char kExecFailedPrefix[] = "exec failed: ";
inline constexpr char kStartProcessPrefix[] =
    "unable to start container process: error during container init: ";

// Trailing metadata of CreateProcess: what the guest's kernel could not grant, one a warning, in
// ASCII. Ours only; a client that does not know it does not see it.
inline constexpr char kWarningMetadata[] = "arca-warning";

}  // namespace arca::base::texts

// Mount and Umount: file systems in the sandbox's own mount namespace.
//
// May block for as long as a device or a file server does: worker threads only.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vminitd/guest_path.h"

namespace arca::vminitd {

struct MountRequest {
    std::string type;    // "", "none" and "bind" for what makes no file system
    std::string source;  // a path for a bind, else whatever the file system takes
    GuestPath destination;
    std::vector<std::string> options;  // of spec/mount_options.h
};

// Waits so long; false: give up now.
using Pause = std::function<bool(std::chrono::milliseconds)>;

// What a mount needs of its surroundings.
struct MountSurroundings {
    std::string containers;  // as for GuestPath::parse()
    Pause pause;
    // Asks the kernel to look for devices that were plugged in: it does not by itself when nobody
    // handles the controller's event. Its failure shows as the mount's.
    std::function<void()> rescan;
};

// Makes the destination if it is missing (a directory; for the bind of anything else a file) and
// mounts. A virtiofs tag or a /dev/vd* disk may have been plugged in just now: on failure the bus
// is rescanned and the mount tried again for up to 2 s; the first error is what is told.
//
// Without a type and a bind, options change the mount that is there: `remount`, or only words of
// propagation.
base::Result<> mountAt(const MountRequest& request, const MountSurroundings& surroundings);

// Echoes "1" into /sys/bus/pci/rescan.
void rescanPci();

inline constexpr std::chrono::milliseconds kUmountLimit{1'000};
// umount2(2). While something is in use (EBUSY) it is tried again up to kUmountLimit; then
// kFailedPrecondition. Every other failure is kInvalidArgument, also that nothing is mounted there.
base::Result<> umountAt(const GuestPath& path, int flags, const Pause& pause);

}  // namespace arca::vminitd

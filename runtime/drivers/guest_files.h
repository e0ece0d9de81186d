// How the files of a container get into its guest: the root file system and what is bind-mounted.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/drivers/attachment.h"
#include "runtime/drivers/guest_spec.h"
#include "runtime/settings.h"
#include "spec/spec.h"

namespace arca::runtime {

struct GuestFiles {
    enum class Way {
        kShare,  // by virtiofs, from the monitor's share
        kPaths,  // the guest has them, where the configuration says
        kCopy,   // the monitor sends them
        kMount,  // of the root file system: the guest mounts a device of its own
    };
    Way rootfs = Way::kShare;
    Way binds = Way::kShare;
    GuestDevice device;  // with kMount
    uint32_t copy_mib = 0;

    [[nodiscard]] Way wayOf(const SharedPath& path) const {
        return path.name == kRootfsShare ? rootfs : binds;
    }
    [[nodiscard]] bool uses(Way way) const { return rootfs == way || binds == way; }
};

// What the host's settings say for a sandbox of this kind ("vm", or one of others).
GuestFiles guestFilesOf(const std::string& kind, const Settings& settings);

// Where that puts them in the guest.
Placements placementsOf(const GuestFiles& files, const std::string& container_id,
                        const Settings& settings);

// MiB of a guest's memory that its copies take: what is copied lies in a tmpfs that may fill three
// quarters of the memory. What cannot be read counts nothing; copying it will say why.
uint32_t copyMemoryMib(const GuestFiles& files, const spec::Spec& spec);

// Hands the monitor a detached, if need be read-only mount of everything that it is to share or to
// copy.
base::Result<> sendTrees(Attachment& attachment, const GuestFiles& files,
                         const std::vector<SharedPath>& paths);

// Who unpacks.
enum class Unpacker {
    kOurs,            // keeps everything
    kProtocol,        // loses something: an error where it would
    kProtocolLosing,  // the same, and that may be
};

// Has the monitor copy what is to be copied, one after the other. As long as bytes move there is no
// limit of time. The error names the path; what was copied until then stays in the container's
// folder.
base::Result<> copyTrees(Attachment& attachment, const GuestFiles& files,
                         const std::vector<SharedPath>& paths, Unpacker unpacker);

}  // namespace arca::runtime

// Copy: a file or a folder between host and guest, over a data channel.
//
// Blocking; worker threads only.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "archive/archive.h"
#include "base/data_channel.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vminitd/guest_path.h"

namespace arca::vminitd {

struct CopyInRequest {
    GuestPath path;
    uint32_t mode = 0;  // of a new file; 0: 0644. Set-id and sticky bits are dropped
    bool create_parents = false;
    bool is_archive = false;
    bool exact = false;  // of an archive: all that tar keeps, instead of what the protocol keeps
};
// Makes the folders that were asked for. To be called before the channel is dialled.
base::Result<> prepareCopyIn(const CopyInRequest& request);
// Reads the channel to its end: into the file, or unpacked into the folder (which is made).
base::Result<> copyIn(const CopyInRequest& request, base::DataChannel& channel,
                      const archive::Limits& limits = {});

// What is to be sent to the host, opened.
struct CopySource {
    base::UniqueFd fd;
    bool is_archive = false;  // a folder
    uint64_t size = 0;        // of a file
};
// kNotFound when there is nothing; kInvalidArgument for what is neither file nor folder.
base::Result<CopySource> openCopySource(const GuestPath& path);
// Sends it, and the end after it. `fidelity`: of a folder.
base::Result<> copyOut(const CopySource& source, base::DataChannel& channel,
                       archive::Fidelity fidelity = archive::Fidelity::kProtocol,
                       const archive::Limits& limits = {});

}  // namespace arca::vminitd

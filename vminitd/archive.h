// A directory tree as a gzipped pax archive, both ways.
//
// Neither side trusts the other: what is packed may change under the packer, and what is unpacked
// may be made to break out. Memory is bounded by the depth of the tree and the buffers of
// libarchive whatever the archive says. Blocking; for worker threads, also several at once. Source:
// the guest protocol's Copy.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "base/result.h"

namespace arca::vminitd {

struct ArchiveLimits {
    uint64_t entries = 4'000'000;
    uint64_t bytes = uint64_t{256} << 30U;  // of all files, unpacked
    unsigned depth = 200;                   // of folders; each level costs a descriptor
};

// Gives the next bytes of the stream, 0 at its end.
using ByteSource = std::function<base::Result<size_t>(char* to, size_t size)>;
using ByteSink = std::function<base::Result<>(std::string_view data)>;

// Packs what is in the directory `dir_fd`: files, folders and symlinks, each file on its own even
// when it has several names. Left out, as the protocol has it: devices, FIFOs and sockets, symlinks
// whose text leads out of the tree, and other mounts' contents are packed like the rest.
base::Result<> packTree(int dir_fd, const ByteSink& sink, const ArchiveLimits& limits = {});

struct Unpacked {
    uint64_t entries = 0;  // made
    uint64_t skipped = 0;  // hard links, devices and the like
};

// Unpacks below the directory `dir_fd`. What is in the way is replaced: the last one wins, and a
// symlink or a file where a folder is needed gives way to a folder. No symlink is followed. Modes
// lose the set-id and sticky bits; owners are applied, times are not. `root_is_new`: the entry of
// the tree's root applies to the directory itself.
//
// kInvalidArgument for what is no archive, an empty one, a path that is absolute or has "..", and
// beyond the limits; what was unpacked until then stays. Errors of `source` are passed on.
base::Result<Unpacked> unpackTree(int dir_fd, const ByteSource& source, bool root_is_new,
                                  const ArchiveLimits& limits = {});

}  // namespace arca::vminitd

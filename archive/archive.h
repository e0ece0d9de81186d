// A directory tree as a gzipped pax archive, both ways: the guest protocol's Copy, and root file
// systems that are copied into a guest.
//
// Neither side trusts the other: what is packed may change under the packer, and what is unpacked
// may be made to break out. Memory is bounded by the depth of the tree and the buffers of
// libarchive whatever the archive says; with `exact` by the limits on links and folders too.
// Blocking; for worker threads, also several at once.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "base/result.h"

namespace arca::archive {

struct Limits {
    uint64_t entries = 4'000'000;
    uint64_t bytes = uint64_t{256} << 30U;  // of all files, unpacked
    unsigned depth = 200;                   // of folders; each level costs a descriptor
    uint64_t links = 500'000;               // files with several names, each of them remembered
};

// Gives the next bytes of the stream, 0 at its end.
using ByteSource = std::function<base::Result<size_t>(char* to, size_t size)>;
using ByteSink = std::function<base::Result<>(std::string_view data)>;

enum class Fidelity {
    // As the protocol's Copy has it: files, folders and symlinks, each file on its own even when it
    // has several names. Left out are devices, FIFOs, and symlinks whose text leads out of the
    // tree.
    kProtocol,
    // The same for a reader of that kind, but with every symlink, and kUnsupported names the first
    // file of which such a reader would lose something: set-id and sticky bits, extended
    // attributes, devices, FIFOs.
    kProtocolOrError,
    // The same without that error: what is lost is lost.
    kProtocolWithLosses,
    // Everything that tar keeps: also hard links, devices, FIFOs, all mode bits, times to the
    // nanosecond and extended attributes.
    kExact,
};

struct Packed {
    uint64_t entries = 0;
    uint64_t bytes = 0;  // of the files in them
};

// Packs what is in the directory `dir_fd`, other mounts' contents like the rest. Sockets are always
// left out. kInvalidArgument beyond the limits; errors of `sink` are passed on.
base::Result<Packed> packTree(int dir_fd, const ByteSink& sink,
                              Fidelity fidelity = Fidelity::kProtocol, const Limits& limits = {});

// Packs the regular file `file_fd` as the only one, `name`, of a folder that is the superuser's.
base::Result<Packed> packFile(int file_fd, const char* name, const ByteSink& sink,
                              Fidelity fidelity, const Limits& limits = {});

struct Unpacked {
    uint64_t entries = 0;  // made
    uint64_t skipped =
        0;  // hard links, devices and the like; with kExact: what is of no known type
    uint64_t lost_attributes = 0;  // extended ones that the file system here does not have
};

// Unpacks below the directory `dir_fd`. What is in the way is replaced: the last one wins, and a
// symlink or a file where a folder is needed gives way to a folder. No symlink is followed. Owners
// are applied; modes lose the set-id and sticky bits, and times are not applied, unless `fidelity`
// is kExact. `root_is_new`: the entry of the tree's root applies to the directory itself.
//
// kInvalidArgument for what is no archive, an empty one, a path that is absolute or has "..", and
// beyond the limits; what was unpacked until then stays. Errors of `source` are passed on.
base::Result<Unpacked> unpackTree(int dir_fd, const ByteSource& source, bool root_is_new,
                                  Fidelity fidelity = Fidelity::kProtocol,
                                  const Limits& limits = {});

}  // namespace arca::archive

// The runtime's own view of /proc, held by descriptor, so that nothing that a container put into
// its /proc can stand in for a file that is written to (CVE-2025-52881).
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vmexec {

class ProcFs {
 public:
    // Opens /proc, which must be a procfs. To be called while the runtime's root is in place.
    static base::Result<ProcFs> open();

    // Writes `data` with one write(2) to the file `path` ("sys/kernel/shmmax", "self/attr/exec").
    // No symlink but "self", no mount point and no magic link is passed on the way. What is
    // mounted over or read-only there (a runtime inside a container) is written through a procfs
    // of its own instead.
    base::Result<> write(const std::string& path, std::string_view data) const;

 private:
    explicit ProcFs(base::UniqueFd root) : root_(std::move(root)) {}
    base::UniqueFd root_;
};

}  // namespace arca::vmexec

// The directory that a VM sees: what the host shares with its containers, and nothing else.
//
// It lives in a mount namespace of the monitor's own, so that the host's mount table stays as it is
// and everything is gone with the monitor, however that ends. Each tree arrives as a detached mount
// that the command made from the caller's view of the file system; no path is resolved here.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

class Share {
 public:
    // Leaves the caller's mount namespace and makes the folders in `dir_fd` (the sandbox's).
    static base::Result<Share> make(int dir_fd);

    // The directory to be served: its own files are read-only for the guest.
    [[nodiscard]] const std::string& servedPath() const { return served_; }

    // Makes the detached mount `tree` visible as <container>/<name>. Both are checked.
    base::Result<> add(const std::string& container, const std::string& name, int tree);
    // Takes all of a container's away. Open files of the guest keep working until it closes them.
    void remove(const std::string& container);

 private:
    Share(base::UniqueFd root, std::string served)
        : root_(std::move(root)), served_(std::move(served)) {}
    base::UniqueFd root_;  // where mounts are made
    std::string served_;   // its read-only image
};

}  // namespace arca::runtime

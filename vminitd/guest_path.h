// Paths of requests: where they lead must not be for a container's image to say.
//
// Everything at and below /run/container/<id>/<folder>/ (rootfs, and the folders a writable layer
// is made of) belongs to the container. What is below such a folder is found as the container would
// find it, with that folder as the root; so no symlink in an image leads the agent out of it. All
// other paths are the sandbox's own and mean what they say.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/files.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vminitd {

class GuestPath {
 public:
    // `containers`: the folder of all containers, "/run/container". kInvalidArgument for what is
    // not absolute, has a NUL byte, is longer than PATH_MAX, or has a ".." outside of a container's
    // folder.
    static base::Result<GuestPath> parse(std::string_view text, std::string_view containers);

    // For messages.
    [[nodiscard]] const std::string& text() const { return text_; }
    [[nodiscard]] bool confined() const { return base_ != "/"; }
    // The folder above; "/" is its own.
    [[nodiscard]] GuestPath parent() const;
    // The last part; empty for the root of a confined path, and for "/".
    [[nodiscard]] std::string name() const;
    // `name`: one part.
    [[nodiscard]] GuestPath child(std::string_view name) const;

    // openat2(2) with O_CLOEXEC. The errors name the whole path.
    [[nodiscard]] base::Result<base::UniqueFd> open(int flags, mode_t mode = 0) const;
    // `mkdir -p` up to and with the last part; gives it as O_PATH.
    [[nodiscard]] base::Result<base::UniqueFd> makeDirs(mode_t mode) const;
    // What is there, and the folder that holds it; missing folders above are made (0755).
    [[nodiscard]] base::Result<base::PathInRoot> resolve() const;
    // The path itself, for calls that take nothing else; only for !confined().
    [[nodiscard]] const std::string& plain() const { return text_; }

 private:
    [[nodiscard]] base::Result<base::UniqueFd> openBase() const;

    std::string text_;  // cleaned
    std::string base_;  // "/", or /run/container/<id>/<folder>
    std::string rest_;  // below base_, no leading '/'; may be empty
};

}  // namespace arca::vminitd

// A sandbox's folder on the host, and the monitor that lives in it: finding it, starting it.
//
// <root>/@vm/<key>/, 0700: see ARCHITECTURE.md, "Files on the host". `key` is a hash of the id of
// the container that owns the sandbox, so that socket paths stay short.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/monitor/config.h"

namespace arca::runtime {

class SandboxFolder {
 public:
    // `root_fd`: the state root, borrowed. Nothing is opened yet.
    SandboxFolder(int root_fd, const std::string& sandbox_id);

    // A SOCK_SEQPACKET connection to the monitor. kUnavailable when none lives: with the reason
    // that it left, if it left one.
    base::Result<base::UniqueFd> connect();
    // The same; starts a monitor with `config` when there is none.
    base::Result<base::UniqueFd> connectOrLaunch(const MonitorConfig& config);

    // The folder, open after either of them has succeeded.
    [[nodiscard]] int fd() const { return dir_.get(); }
    // Where the monitor and the stand-ins log; invalid when it cannot be opened.
    [[nodiscard]] base::UniqueFd openLog() const;

    // Why the sandbox was lost, in one line; "" when it was not.
    [[nodiscard]] std::string failure();

    // Removes the folder, unless a monitor lives in it. Missing is success.
    base::Result<> remove();

 private:
    base::Result<> open();
    base::Result<base::UniqueFd> launch(const MonitorConfig& config);
    int root_fd_;
    std::string path_;  // relative to the root
    base::UniqueFd dir_;
};

}  // namespace arca::runtime

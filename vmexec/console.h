// The container's terminal: a pty of its own devpts.
//
// The multiplexer is opened inside the container's root and checked to be devpts' before it is
// used; the slave comes from the master's descriptor (TIOCGPTPEER), never from a name, and
// /dev/console is mounted over by descriptor (CVE-2025-52565).
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/spec.h"

namespace arca::vmexec {

struct Console {
    base::UniqueFd master;  // for the agent
    base::UniqueFd slave;   // for the process
};

// Opens a pty of the devpts at /dev/pts inside `root_fd` and sets its window size.
base::Result<Console> openConsole(int root_fd, const std::optional<spec::ConsoleSize>& size);

// Binds the slave over /dev/console of the container, which is made if it is missing.
base::Result<> bindConsole(int root_fd, int slave_fd);

// Makes the slave the controlling terminal of this session and its descriptors 0 to 2, and gives it
// to user `uid`.
base::Result<> useConsole(int slave_fd, uid_t uid);

// Applies "ROWS COLUMNS" to terminal `fd`. Fails with kInvalidArgument on anything else.
base::Result<> setWindowSize(int fd, std::string_view rows_and_columns);

}  // namespace arca::vmexec

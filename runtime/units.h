// Numbers as people and Go programs write them on a command line.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

namespace arca::runtime {

// Bytes: a decimal number, perhaps with a fraction, and a binary suffix (k, m, g, t, p; "kb" and
// "kib" mean the same; any case). -1 is unlimited. Source: docker/go-units RAMInBytes.
base::Result<int64_t> parseBytes(std::string_view text);

// Go's time.ParseDuration: "5s", "1m30s", "1.5h", "300ms", "-1s"; "0" needs no unit.
base::Result<std::chrono::nanoseconds> parseDuration(std::string_view text);

// exec --user: "UID" or "UID:GID", decimal.
struct UserForm {
    uid_t uid = 0;
    std::optional<gid_t> gid;
};
base::Result<UserForm> parseUser(std::string_view text);

}  // namespace arca::runtime

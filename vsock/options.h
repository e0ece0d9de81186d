// The command line of arca-vsock.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "vsock/confine.h"

namespace arca::vsock {

struct Options {
    std::string vhost_user_path;  // exactly one of these two
    std::optional<int> vhost_user_fd;
    std::string base;
    uint64_t cid = 0;
    size_t max_streams = 1024;
    std::optional<UserId> user;
    bool keep = false;
    std::string log;
    bool log_json = false;
    bool debug = false;
    std::optional<int> ready_fd;
    bool help = false;
};

// The most streams that --max-streams takes.
inline constexpr size_t kMostStreams = 65536;

// Parses the arguments behind the program's name; "--name value" and "--name=value" alike. Fails
// with kInvalidArgument when something is unknown, missing, given twice or out of range.
base::Result<Options> parseOptions(std::span<const char* const> arguments);

// What --help prints.
extern const char kUsage[];

}  // namespace arca::vsock

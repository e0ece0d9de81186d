// The calls that are about the sandbox's files, environment and kernel, not about containers.
//
// Called from gRPC's threads, several at once; nothing here touches the agent's state.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace arca::vminitd {

// The agent's own variables. Not the C library's environment, which threads must not change.
class Environment {
 public:
    explicit Environment(std::map<std::string, std::string> values) : values_(std::move(values)) {}
    // kInvalidArgument for a key that is empty or has a '=' or NUL in it.
    base::Result<> set(const std::string& key, const std::string& value);
    [[nodiscard]] std::optional<std::string> get(const std::string& key) const;
    // "KEY=VALUE" each, as execve(2) takes them.
    [[nodiscard]] std::vector<std::string> all() const;

 private:
    mutable std::mutex mutex_;
    std::map<std::string, std::string> values_;  // guarded by mutex_
};

// `all`: parents too (0755), and an existing directory is fine. `perms` are the new directory's
// mode whatever the umask; 0 means 0755.
base::Result<> makeDirectory(const std::string& path, bool all, uint32_t perms);

struct WriteFileRequest {
    std::string path;
    std::string data;
    uint32_t mode = 0;  // 0: 0644; only for a new file
    bool create_parent_dirs = false;
    bool append = false;
    bool create_if_missing = false;
};
// Replaces the file's content (or appends to it).
base::Result<> writeFile(const WriteFileRequest& request);

// stat(2), following symlinks.
base::Result<struct stat> statFile(const std::string& path);

}  // namespace arca::vminitd

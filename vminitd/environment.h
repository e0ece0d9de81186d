// Setenv and Getenv: the agent's own variables.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace arca::vminitd {

// Not the C library's environment, which threads must not change. Any thread.
class Environment {
 public:
    // Of all names and values together, in bytes.
    static constexpr size_t kMaxBytes = size_t{1} << 20U;

    explicit Environment(std::map<std::string, std::string> values) : values_(std::move(values)) {}
    // kInvalidArgument for a key that is empty or has a '=' or NUL in it, for a value with a NUL,
    // and when all would be more than kMaxBytes.
    base::Result<> set(const std::string& key, const std::string& value);
    [[nodiscard]] std::optional<std::string> get(const std::string& key) const;
    // "KEY=VALUE" each, as execve(2) takes them.
    [[nodiscard]] std::vector<std::string> all() const;

 private:
    mutable std::mutex mutex_;
    std::map<std::string, std::string> values_;  // guarded by mutex_
    size_t bytes_ = 0;                           // the same; of what set() has put there
};

// What a program gets that the agent starts for a container: `base`, PATH when that has none, and
// ARCA_CONTAINER_ID.
std::vector<std::string> environmentFor(std::vector<std::string> base,
                                        const std::string& container_id);

}  // namespace arca::vminitd

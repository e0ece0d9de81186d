#include "vminitd/environment.h"

#include <algorithm>

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

Result<> Environment::set(const std::string& key, const std::string& value) {
    if (key.empty() || key.find('=') != std::string::npos || key.find('\0') != std::string::npos) {
        return fail(Code::kInvalidArgument, "malformed variable name");
    }
    if (value.find('\0') != std::string::npos) {
        return fail(Code::kInvalidArgument, "NUL byte in the value");
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = values_.find(key);
    const size_t before = found == values_.end() ? 0 : key.size() + found->second.size();
    const size_t after = bytes_ - std::min(before, bytes_) + key.size() + value.size();
    if (after > kMaxBytes) {
        return fail(Code::kInvalidArgument,
                    "the variables would be more than " + std::to_string(kMaxBytes) + " bytes");
    }
    values_[key] = value;
    bytes_ = after;
    return {};
}

std::optional<std::string> Environment::get(const std::string& key) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = values_.find(key);
    if (found == values_.end()) return std::nullopt;
    return found->second;
}

std::vector<std::string> Environment::all() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> out;
    for (const auto& [key, value] : values_) out.push_back(key + "=" + value);
    return out;
}

}  // namespace arca::vminitd

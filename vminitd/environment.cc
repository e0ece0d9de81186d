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

std::vector<std::string> environmentFor(std::vector<std::string> base,
                                        const std::string& container_id) {
    constexpr std::string_view kId = "ARCA_CONTAINER_ID=";
    std::erase_if(base, [kId](const std::string& entry) { return entry.starts_with(kId); });
    const bool path = std::any_of(base.begin(), base.end(), [](const std::string& entry) {
        return entry.starts_with("PATH=");
    });
    if (!path)
        base.emplace_back("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    base.push_back(std::string(kId) + container_id);
    return base;
}

}  // namespace arca::vminitd

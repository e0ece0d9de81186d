#include "vminitd/copy_memory.h"

#include <fcntl.h>

#include <cstdint>
#include <string_view>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "vminitd/vm_boot.h"

namespace arca::vminitd {

namespace {

// Bytes of tmpfs files that are charged to the cgroup.
uint64_t fileBytes(const std::string& cgroup) {
    const std::string text = base::readFile(cgroup + "/memory.stat").value_or(std::string());
    constexpr std::string_view kName = "shmem ";
    for (const std::string_view line : base::split(text, '\n')) {
        if (line.rfind(kName, 0) != 0) continue;
        return base::parseNumber<uint64_t>(line.substr(kName.size())).value_or(0);
    }
    return 0;
}

}  // namespace

void CopyMemory::begin() {
    if (cgroup_.empty()) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (users_++ == 0) limit("max");
}

void CopyMemory::end() {
    if (cgroup_.empty()) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--users_ == 0) limit(std::to_string(kAgentMemoryHigh + fileBytes(cgroup_)));
}

void CopyMemory::limit(const std::string& value) const {
    const auto written = base::writeControlFile(AT_FDCWD, cgroup_ + "/memory.high", value);
    // Without it a large copy is slow; or the agent's own memory is not limited for a while.
    if (!written) base::log::warning(written.error().message());
}

}  // namespace arca::vminitd

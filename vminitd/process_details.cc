#include "vminitd/process_details.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/files.h"
#include "base/process_stat.h"
#include "base/strings.h"

namespace arca::vminitd {
namespace {

constexpr size_t kStatusBytes = size_t{64} << 10U;

// Source: Linux' Documentation/admin-guide/devices.txt.
std::string terminalName(dev_t device) {
    constexpr unsigned kFirstPts = 136;
    constexpr unsigned kLastPts = 143;
    const unsigned number = minor(device);
    if (device == 0) return "";
    if (major(device) >= kFirstPts && major(device) <= kLastPts) {
        return "pts/" + std::to_string(((major(device) - kFirstPts) << 8U) + number);
    }
    if (major(device) == 4) {
        return number < 64 ? "tty" + std::to_string(number) : "ttyS" + std::to_string(number - 64);
    }
    if (major(device) == 5 && number == 1) return "console";
    return "?";
}

uint64_t ticksPerSecond() {
    return static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
}

int64_t secondsSinceEpoch(uint64_t ticks_since_boot) {
    timespec now{};
    timespec up{};
    (void)::clock_gettime(CLOCK_REALTIME, &now);
    (void)::clock_gettime(CLOCK_BOOTTIME, &up);
    return now.tv_sec - up.tv_sec + static_cast<int64_t>(ticks_since_boot / ticksPerSecond());
}

// The arguments as the process has them now, which is what it likes: only a beginning is read.
std::string arguments(const std::string& folder) {
    const auto file = base::openAt(AT_FDCWD, folder + "cmdline", O_RDONLY);
    if (!file) return "";
    std::array<char, kCommandBytes> buffer;
    const ssize_t n = ::read(file->get(), buffer.data(), buffer.size());
    if (n <= 0) return "";
    std::string text(buffer.data(), static_cast<size_t>(n));
    while (!text.empty() && text.back() == '\0') text.pop_back();
    std::replace(text.begin(), text.end(), '\0', ' ');
    return text;
}

}  // namespace

std::optional<ProcessDetails> processDetails(pid_t pid) {
    const std::string folder = "/proc/" + std::to_string(pid) + "/";
    const auto stat = base::readProcessStat(pid);
    const auto status = base::readFile(folder + "status", kStatusBytes);
    if (!stat || !status) return std::nullopt;
    const auto uids = base::split(base::statusField(*status, "Uid:"), '\t');
    constexpr size_t kEffective = 1;
    if (uids.size() <= kEffective) return std::nullopt;
    ProcessDetails details;
    details.pid = pid;
    details.parent = stat->parent;
    details.uid = base::parseNumber<uid_t>(uids[kEffective]).value_or(0);
    details.terminal = terminalName(stat->terminal);
    details.cpu_ms = stat->cpu_ticks * 1000 / ticksPerSecond();
    details.started = secondsSinceEpoch(stat->start_time_ticks);
    details.command = arguments(folder);
    if (details.command.empty()) {
        details.command = "[" + stat->name + "]";
        if (stat->state == 'Z') details.command += " <defunct>";
    }
    return details;
}

}  // namespace arca::vminitd

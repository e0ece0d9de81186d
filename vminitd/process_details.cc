#include "vminitd/process_details.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vminitd {
namespace {

using base::parseNumber;

constexpr size_t kStatBytes = 4096;
constexpr size_t kStatusBytes = size_t{64} << 10U;

template <typename T>
T number(const std::vector<std::string_view>& fields, size_t index) {
    return index < fields.size() ? parseNumber<T>(fields[index]).value_or(0) : 0;
}

// Field 7 of stat, in the form of stat(2) for a device of less than 256 minors. Source: proc(5) and
// Linux' Documentation/admin-guide/devices.txt.
std::string terminalName(int device) {
    constexpr unsigned kFirstPts = 136;
    constexpr unsigned kLastPts = 143;
    const auto encoded = static_cast<unsigned>(device);
    const unsigned major = (encoded >> 8U) & 0xfffU;
    const unsigned minor = (encoded & 0xffU) | ((encoded >> 12U) & 0xfff00U);
    if (device == 0) return "";
    if (major >= kFirstPts && major <= kLastPts) {
        return "pts/" + std::to_string(((major - kFirstPts) << 8U) + minor);
    }
    if (major == 4)
        return minor < 64 ? "tty" + std::to_string(minor) : "ttyS" + std::to_string(minor - 64);
    if (major == 5 && minor == 1) return "console";
    return "?";
}

int64_t secondsSinceEpoch(uint64_t ticks_since_boot) {
    timespec now{};
    timespec up{};
    (void)::clock_gettime(CLOCK_REALTIME, &now);
    (void)::clock_gettime(CLOCK_BOOTTIME, &up);
    return now.tv_sec - up.tv_sec +
           static_cast<int64_t>(ticks_since_boot / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK)));
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

uid_t effectiveUid(const std::string& status) {
    for (const std::string_view line : base::split(status, '\n')) {
        if (line.rfind("Uid:\t", 0) == 0) return number<uid_t>(base::split(line, '\t'), 2);
    }
    return 0;
}

}  // namespace

std::optional<ProcessDetails> processDetails(pid_t pid) {
    const std::string folder = "/proc/" + std::to_string(pid) + "/";
    const auto stat = base::readFile(folder + "stat", kStatBytes);
    const auto status = base::readFile(folder + "status", kStatusBytes);
    if (!stat || !status) return std::nullopt;
    // The name may hold spaces and brackets; the fields count from the last bracket on.
    const size_t open = stat->find('(');
    const size_t close = stat->rfind(')');
    if (open == std::string::npos || close == std::string::npos || close + 2 >= stat->size()) {
        return std::nullopt;
    }
    const auto fields = base::split(std::string_view(*stat).substr(close + 2), ' ');
    constexpr size_t kFirst = 3;  // the number of the first one, the state
    const auto ticks = static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
    ProcessDetails details;
    details.pid = pid;
    details.parent = number<pid_t>(fields, 4 - kFirst);
    details.uid = effectiveUid(*status);
    details.terminal = terminalName(number<int>(fields, 7 - kFirst));
    details.cpu_ms =
        (number<uint64_t>(fields, 14 - kFirst) + number<uint64_t>(fields, 15 - kFirst)) * 1000 /
        ticks;
    details.started = secondsSinceEpoch(number<uint64_t>(fields, 22 - kFirst));
    details.command = arguments(folder);
    if (details.command.empty()) {
        details.command = "[" + stat->substr(open + 1, close - open - 1) + "]";
        if (fields[0] == "Z") details.command += " <defunct>";
    }
    return details;
}

}  // namespace arca::vminitd

#include "base/process_stat.h"

#include <cerrno>
#include <vector>

#include "base/files.h"
#include "base/strings.h"

namespace arca::base {

Result<ProcessStat> readProcessStat(pid_t pid) {
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    const auto text = readFile(path, 4096);
    if (!text) {
        // ESRCH: it went between open and read.
        return fail(Code::kNotFound, "process " + std::to_string(pid) + ": no such process", ESRCH);
    }
    // The command name may hold spaces and brackets; the fields count from the last bracket on.
    const size_t open = text->find('(');
    const size_t close = text->rfind(')');
    if (open == std::string::npos || close == std::string::npos || close + 2 >= text->size()) {
        return fail(Code::kInternal, path + ": not in the known form");
    }
    const auto fields = split(std::string_view(*text).substr(close + 2), ' ');
    constexpr size_t kFirst = 3;  // the number of the first one, the state
    constexpr size_t kStartTime = 22 - kFirst;
    if (fields.size() <= kStartTime || fields[0].empty()) {
        return fail(Code::kInternal, path + ": not in the known form");
    }
    const auto start = parseNumber<uint64_t>(fields[kStartTime]);
    if (!start) return fail(Code::kInternal, path + ": start time is no number");
    const auto ticks = [&](size_t number) {
        return parseNumber<uint64_t>(fields[number - kFirst]).value_or(0);
    };
    ProcessStat stat;
    stat.name = text->substr(open + 1, close - open - 1);
    stat.state = fields[0].front();
    stat.parent = parseNumber<pid_t>(fields[4 - kFirst]).value_or(0);
    stat.terminal = static_cast<unsigned>(parseNumber<int>(fields[7 - kFirst]).value_or(0));
    stat.cpu_ticks = ticks(14) + ticks(15);
    stat.start_time_ticks = *start;
    return stat;
}

std::string_view statusField(std::string_view status, std::string_view name) {
    for (const std::string_view line : split(status, '\n')) {
        if (line.substr(0, name.size()) == name) return trim(line.substr(name.size()));
    }
    return {};
}

}  // namespace arca::base

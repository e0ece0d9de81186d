#include "runtime/listing.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/strings.h"

namespace arca::runtime {
namespace {

using Json = nlohmann::ordered_json;
using base::Code;
using base::fail;
using base::Result;

Json toJson(const ListEntry& entry) {
    const Record& record = entry.record;
    Json json{{"ociVersion", record.oci_version},
              {"id", record.id},
              {"pid", entry.status == Status::kStopped ? 0 : record.init.pid},
              {"status", statusName(entry.status)},
              {"bundle", record.bundle},
              {"rootfs", record.rootfs},
              {"created", record.created}};
    if (!record.annotations.empty()) json["annotations"] = record.annotations;
    json["owner"] = entry.owner_name;
    return json;
}

std::string dump(const Json& json, int indent) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::vector<std::string_view> words(std::string_view line) {
    std::vector<std::string_view> out;
    while (true) {
        const size_t begin = line.find_first_not_of(" \t");
        if (begin == std::string_view::npos) return out;
        const size_t end = line.find_first_of(" \t", begin);
        out.push_back(line.substr(begin, end - begin));
        if (end == std::string_view::npos) return out;
        line.remove_prefix(end);
    }
}

constexpr size_t kTerminalWidth = 8;

// The C column: of one CPU since the start, as a whole number.
unsigned percentOfCpu(const ProcessRow& row, time_t now) {
    constexpr uint64_t kMost = 99;
    const int64_t started = std::clamp<int64_t>(row.started, 0, now - 1);
    const auto lived_ms = static_cast<uint64_t>(now - started) * 1000;
    return static_cast<unsigned>(std::min(row.cpu_ms / (lived_ms / 100), kMost));
}

// The STIME column: the time of today, else the day of this year, else the year.
std::string startTime(int64_t started, time_t now) {
    tm then{};
    tm today{};
    const auto seconds = static_cast<time_t>(started);
    if (::localtime_r(&seconds, &then) == nullptr || ::localtime_r(&now, &today) == nullptr) {
        return "?";
    }
    const bool this_year = then.tm_year == today.tm_year;
    const bool this_day = this_year && then.tm_yday == today.tm_yday;
    std::array<char, 16> text{};
    const char* form = this_day ? "%H:%M" : this_year ? "%b%d" : "%Y";
    const size_t length = std::strftime(text.data(), text.size(), form, &then);
    return std::string(text.data(), length);
}

// The TIME column: [days-]hh:mm:ss.
std::string cpuTime(uint64_t seconds) {
    constexpr uint64_t kDay = 86400;
    constexpr uint64_t kHour = 3600;
    constexpr uint64_t kMinute = 60;
    std::array<char, 48> text{};
    const std::string days = seconds >= kDay ? std::to_string(seconds / kDay) + "-" : "";
    (void)std::snprintf(
        text.data(), text.size(), "%02u:%02u:%02u", static_cast<unsigned>(seconds % kDay / kHour),
        static_cast<unsigned>(seconds % kHour / kMinute), static_cast<unsigned>(seconds % kMinute));
    return days + text.data();
}

}  // namespace

std::string stateJson(const ListEntry& entry) {
    return dump(toJson(entry), 2);
}

std::string listJson(const std::vector<ListEntry>& entries) {
    if (entries.empty()) return "null\n";
    Json list = Json::array();
    for (const ListEntry& entry : entries) list.push_back(toJson(entry));
    return dump(list, -1) + "\n";
}

std::string listTable(const std::vector<ListEntry>& entries) {
    std::vector<std::vector<std::string>> rows;
    rows.push_back({"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"});
    for (const ListEntry& entry : entries) {
        const pid_t pid = entry.status == Status::kStopped ? 0 : entry.record.init.pid;
        rows.push_back({entry.record.id, std::to_string(pid), std::string(statusName(entry.status)),
                        entry.record.bundle, entry.record.created, entry.owner_name});
    }
    constexpr size_t kLeastWidth = 12;
    constexpr size_t kPadding = 3;
    std::string out;
    std::vector<size_t> widths(rows.front().size(), kLeastWidth);
    for (const auto& row : rows) {
        for (size_t i = 0; i < row.size(); ++i) {
            widths[i] = std::max(widths[i], row[i].size() + kPadding);
        }
    }
    for (const auto& row : rows) {
        for (size_t i = 0; i + 1 < row.size(); ++i) {
            out += row[i] + std::string(widths[i] - row[i].size(), ' ');
        }
        out += row.back() + "\n";
    }
    return out;
}

std::string pidsJson(const std::vector<pid_t>& pids) {
    if (pids.empty()) return "null\n";
    std::string out = "[";
    for (const pid_t pid : pids) {
        if (out.size() > 1) out += ",";
        out += std::to_string(pid);
    }
    return out + "]\n";
}

Result<std::string> filterPs(std::string_view ps_output, const std::vector<pid_t>& pids) {
    std::string out;
    std::optional<size_t> column;
    for (const std::string_view line : base::split(ps_output, '\n')) {
        const auto fields = words(line);
        if (fields.empty()) continue;
        if (!column) {
            const auto found = std::find(fields.begin(), fields.end(), "PID");
            if (found == fields.end()) {
                return fail(Code::kInvalidArgument, "couldn't find PID field in ps output");
            }
            column = static_cast<size_t>(found - fields.begin());
            out += std::string(line) + "\n";
            continue;
        }
        if (fields.size() <= *column) continue;
        const auto pid = base::parseNumber<pid_t>(fields[*column]);
        if (!pid) {
            return fail(Code::kInvalidArgument,
                        "unexpected pid \"" + base::printable(fields[*column]) + "\" in ps output");
        }
        if (std::find(pids.begin(), pids.end(), *pid) != pids.end()) {
            out += std::string(line) + "\n";
        }
    }
    if (!column) return fail(Code::kInvalidArgument, "couldn't find PID field in ps output");
    return out;
}

std::string processTable(const std::vector<ProcessRow>& rows, time_t now) {
    std::string out = "UID          PID    PPID  C STIME TTY          TIME CMD\n";
    for (const ProcessRow& row : rows) {
        const std::string user = row.uid == 0 ? "root" : std::to_string(row.uid);
        const std::string terminal =
            row.terminal.empty() ? "?" : base::printable(row.terminal.substr(0, kTerminalWidth));
        std::array<char, 128> line;
        const int n = std::snprintf(line.data(), line.size(), "%-8s %7d %7d %2u %5s %-8s %8s ",
                                    user.c_str(), row.pid, row.parent, percentOfCpu(row, now),
                                    startTime(row.started, now).c_str(), terminal.c_str(),
                                    cpuTime(row.cpu_ms / 1000).c_str());
        out.append(line.data(), std::min(static_cast<size_t>(n), line.size() - 1));
        out += base::printable(row.command) + "\n";
    }
    return out;
}

std::string ownerName(uid_t uid, std::string_view passwd) {
    const std::string number = std::to_string(uid);
    for (const std::string_view line : base::split(passwd, '\n')) {
        const auto fields = base::split(line, ':');
        if (fields.size() > 2 && fields[2] == number) return std::string(fields[0]);
    }
    return "#" + number;
}

Result<int> printOut(std::string_view text) {
    ARCA_CHECK(base::writeAll(STDOUT_FILENO, text));
    return 0;
}

}  // namespace arca::runtime

#include "runtime/listing.h"

#include <unistd.h>

#include <algorithm>
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

#include "vminitd/resctrl.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "vminitd/mount_table.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

namespace {

constexpr char kMember[] = "linux.intelRdt";

bool hasSchema(const spec::IntelRdt& rdt) {
    return rdt.l3CacheSchema || rdt.memBwSchema || !rdt.schemata.empty();
}

bool wantsMonitor(const spec::IntelRdt& rdt) {
    return rdt.enableMonitoring || rdt.enableCMT || rdt.enableMBM;
}

// In the order in which they are written. A bandwidth in the caches' schema gives way to the one in
// its own member.
std::vector<std::string> linesOf(const spec::IntelRdt& rdt) {
    std::vector<std::string> lines;
    const std::string caches = rdt.l3CacheSchema.value_or(std::string());
    for (const std::string_view line : base::split(caches, '\n')) {
        if (!line.empty() && !line.starts_with("MB:")) lines.emplace_back(line);
    }
    if (rdt.memBwSchema) lines.push_back(*rdt.memBwSchema);
    lines.insert(lines.end(), rdt.schemata.begin(), rdt.schemata.end());
    return lines;
}

// A schema's line: for each domain its value, a bit mask in hexadecimal, or a bandwidth.
struct Schema {
    std::string resource;
    std::map<uint64_t, uint64_t> values;
};

std::optional<uint64_t> parseHex(std::string_view text) {
    if (text.rfind("0x", 0) == 0) text.remove_prefix(2);
    if (text.empty() || text.size() > 16) return std::nullopt;
    uint64_t value = 0;
    for (const char c : text) {
        const size_t digit = std::string_view("0123456789abcdef")
                                 .find(static_cast<char>(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c));
        if (digit == std::string_view::npos) return std::nullopt;
        value = value << 4U | digit;
    }
    return value;
}

std::optional<Schema> parseSchema(std::string_view line) {
    line = base::trim(line);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0) return std::nullopt;
    Schema schema{std::string(base::trim(line.substr(0, colon))), {}};
    const bool bandwidth = schema.resource == "MB" || schema.resource == "SMBA";
    for (const std::string_view part : base::split(line.substr(colon + 1), ';')) {
        const std::string_view pair = base::trim(part);
        if (pair.empty()) continue;
        const size_t equals = pair.find('=');
        if (equals == std::string_view::npos) return std::nullopt;
        const auto domain = base::parseNumber<uint64_t>(base::trim(pair.substr(0, equals)));
        const std::string_view text = base::trim(pair.substr(equals + 1));
        const auto value = bandwidth ? base::parseNumber<uint64_t>(text) : parseHex(text);
        if (!domain || !value) return std::nullopt;
        schema.values[*domain] = *value;
    }
    return schema;
}

bool agrees(const Schema& wanted, const std::vector<Schema>& there) {
    return std::any_of(there.begin(), there.end(), [&](const Schema& one) {
        if (one.resource != wanted.resource) return false;
        return std::all_of(wanted.values.begin(), wanted.values.end(), [&](const auto& value) {
            const auto found = one.values.find(value.first);
            return found != one.values.end() && found->second == value.second;
        });
    });
}

std::string about(const std::string& path) {
    return std::string(kMember) + ": " + base::printable(path);
}

tl::unexpected<base::Error> isThere(const std::string& path) {
    return fail(Code::kAlreadyExists, about(path) + " is there already", EEXIST);
}

ResctrlGroup placeOf(const std::string& root, const spec::IntelRdt& rdt,
                     const std::string& container_id) {
    ResctrlGroup group;
    group.named = rdt.closID.has_value();
    const std::string name = rdt.closID.value_or(container_id);
    group.path = name == "/" ? root : root + "/" + name;
    if (wantsMonitor(rdt)) group.monitor = group.path + "/mon_groups/" + container_id;
    return group;
}

}  // namespace

Result<std::string> Resctrl::findRoot() const {
    if (!root_.empty()) return root_;
    ARCA_TRY(std::string root, mountPointOf("resctrl"));
    if (!root.empty()) return root;
    return fail(Code::kUnsupported, std::string(kMember) + ": no resctrl file system is mounted");
}

Result<> Resctrl::checkMonitoring(const std::string& root, const spec::IntelRdt& rdt) {
    if (!wantsMonitor(rdt)) return {};
    const auto features = fs_.read(root + "/info/L3_MON/mon_features");
    const std::string text = features.value_or(std::string());
    const auto lines = base::split(text, '\n');
    const auto has = [&](std::string_view name) {
        return std::find(lines.begin(), lines.end(), name) != lines.end();
    };
    const std::pair<bool, const char*> needs[] = {
        {rdt.enableMonitoring && !features, "enableMonitoring"},
        {rdt.enableCMT && !has("llc_occupancy"), "enableCMT"},
        {rdt.enableMBM && !has("mbm_total_bytes") && !has("mbm_local_bytes"), "enableMBM"}};
    for (const auto& [missing, member] : needs) {
        if (!missing) continue;
        return fail(Code::kUnsupported,
                    std::string(kMember) + "." + member + ": this machine does not monitor that");
    }
    return {};
}

Result<> Resctrl::compare(const std::string& path, const spec::IntelRdt& rdt) {
    ARCA_TRY(const std::string text, fs_.read(path + "/schemata"));
    std::vector<Schema> there;
    for (const std::string_view line : base::split(text, '\n')) {
        if (auto schema = parseSchema(line)) there.push_back(std::move(*schema));
    }
    for (const std::string& line : linesOf(rdt)) {
        const auto wanted = parseSchema(line);
        if (wanted && agrees(*wanted, there)) continue;
        return fail(Code::kInvalidArgument, about(path) + " is there and has not the schema \"" +
                                                base::printable(line) + "\"");
    }
    return {};
}

ResctrlGroup Resctrl::leftBehind(const spec::IntelRdt& rdt, const std::string& container_id) const {
    const auto root = findRoot();
    if (!root) return {};
    ResctrlGroup group = placeOf(*root, rdt, container_id);
    group.made = !group.named;
    return group;
}

Result<ResctrlGroup> Resctrl::locate(const spec::IntelRdt& rdt, const std::string& container_id) {
    ARCA_TRY(const std::string root, findRoot());
    ARCA_CHECK(checkMonitoring(root, rdt));
    const std::string name = rdt.closID.value_or(container_id);
    // Folders of the kernel's own lie beside the groups.
    for (const char* reserved : {"info", "mon_groups", "mon_data"}) {
        if (name != reserved) continue;
        return fail(Code::kInvalidArgument,
                    std::string(kMember) + ": a class of service cannot be called " + name);
    }
    ResctrlGroup group = placeOf(root, rdt, container_id);
    const bool there = fs_.exists(group.path);
    group.made = !there;
    if (there && !group.named) return isThere(group.path);
    if (there && !fs_.exists(group.path + "/tasks")) {
        return fail(Code::kInvalidArgument, about(group.path) + " is no class of service");
    }
    if (!there && group.named && !hasSchema(rdt)) {
        return fail(Code::kNotFound, about(group.path) + " is not there, and no schema to make it",
                    ENOENT);
    }
    if (there && hasSchema(rdt)) ARCA_CHECK(compare(group.path, rdt));
    if (!group.monitor.empty() && fs_.exists(group.monitor)) return isThere(group.monitor);
    return group;
}

Result<> Resctrl::writeSchemata(const std::string& path, const spec::IntelRdt& rdt) {
    for (const std::string& line : linesOf(rdt)) {
        auto written = fs_.write(path + "/schemata", line + "\n");
        if (written) continue;
        // The kernel's own words.
        const auto why = findRoot().and_then(
            [&](const std::string& root) { return fs_.read(root + "/info/last_cmd_status"); });
        std::string text = std::string(kMember) + ": schema \"" + base::printable(line) + "\"";
        if (why && !why->empty() && *why != "ok") text += " (" + base::printable(*why) + ")";
        return fail(std::move(written).error().withContext(text));
    }
    return {};
}

Result<> Resctrl::create(const ResctrlGroup& group, const spec::IntelRdt& rdt) {
    if (group.path.empty()) return {};
    if (group.made) {
        ARCA_TRY(const bool made, fs_.makeDir(group.path));
        if (!made && !group.named) return isThere(group.path);
        // Where it was not made, another container has been quicker.
        auto written = made ? writeSchemata(group.path, rdt) : compare(group.path, rdt);
        if (!written) {
            if (made) (void)fs_.removeDir(group.path);
            return written;
        }
    }
    if (group.monitor.empty()) return {};
    const auto made = fs_.makeDir(group.monitor);
    if (made && *made) return {};
    if (group.made) (void)remove({group.path, true, group.named, {}}, true);
    if (!made) return fail(made.error());
    return isThere(group.monitor);
}

Result<> Resctrl::addProcess(const ResctrlGroup& group, pid_t pid) {
    if (group.path.empty()) return {};
    ARCA_CHECK(fs_.write(group.path + "/tasks", std::to_string(pid)));
    if (group.monitor.empty()) return {};
    return fs_.write(group.monitor + "/tasks", std::to_string(pid));
}

Result<> Resctrl::removeGroup(const std::string& path) {
    ARCA_TRY(const bool gone, fs_.removeDir(path));
    if (gone) return {};
    return fail(Code::kInternal, about(path) + " is still in use", EBUSY);
}

Result<> Resctrl::remove(const ResctrlGroup& group, bool undo) {
    if (!group.monitor.empty()) ARCA_CHECK(removeGroup(group.monitor));
    if (group.path.empty() || !group.made) return {};
    if (group.named) {
        const auto tasks = fs_.read(group.path + "/tasks");
        if (!undo || !tasks || !tasks->empty()) return {};
    }
    return removeGroup(group.path);
}

}  // namespace arca::vminitd

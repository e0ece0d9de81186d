// Small inputs of the agent's calls: paths, mount options, resolver files, emulators.
#include <linux/mount.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "network/interface.h"
#include "spec/mount_options.h"
#include "vminitd/guest_path.h"
#include "vminitd/kernel.h"
#include "vminitd/resolver_files.h"

namespace {

using namespace arca;

void check(bool claim) {
    if (!claim) std::abort();
}

size_t lines(const std::string& text) {
    check(text.empty() || text.back() == '\n');
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

void paths(const std::string& text) {
    const auto path = vminitd::GuestPath::parse(text, "/run/container");
    if (!path) return;
    check(path->text().front() == '/' && path->text().find('\0') == std::string::npos);
    if (!path->confined()) {
        for (const std::string_view part : base::split(path->text(), '/')) check(part != "..");
    } else {
        check(path->text().rfind("/run/container/", 0) == 0);
    }
    check(path->name().find('/') == std::string::npos);
    // Taken apart and put together it is the same.
    if (path->text() != "/" && !path->name().empty()) {
        check(path->parent().child(path->name()).text() == path->text());
    }
    const auto again = vminitd::GuestPath::parse(path->text(), "/run/container");
    check(again && again->text() == path->text() && again->confined() == path->confined());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    std::vector<std::string> parts;
    for (const std::string_view part : base::split(text, '\xff')) parts.emplace_back(part);
    paths(text);

    if (const auto options = spec::parseMountOptions(parts[0], parts)) {
        check((options->top.set & options->top.clear & ~uint64_t{MOUNT_ATTR__ATIME}) == 0);
        for (const std::string& item : options->data) check(!spec::isKnownMountOption(item));
    }

    vminitd::DnsConfig dns{
        .nameservers = parts, .domain = parts[0], .search_domains = parts, .options = parts};
    if (const auto made = vminitd::resolvConf(dns)) {
        check(lines(*made) == parts.size() + 3);
    }
    std::vector<vminitd::HostsEntry> entries;
    for (const std::string& part : parts) entries.push_back({part, parts, part});
    if (const auto made = vminitd::hostsText(entries, parts[0])) {
        check(lines(*made) == parts.size() + 1);
    }

    const auto part = [&](size_t i) { return i < parts.size() ? parts[i] : std::string(); };
    const vminitd::Emulator emulator{part(0), part(1), part(2), part(3), part(4), part(5), part(6)};
    if (const auto line = vminitd::emulatorLine(emulator)) {
        check(std::count(line->begin(), line->end(), ':') == 7);
        check(base::printable(*line) == *line && line->find('\n') == std::string::npos);
    }
    if (network::checkInterfaceName(text)) {
        check(text.size() <= 15 && text.find('/') == std::string::npos && text != "..");
    }
    return 0;
}

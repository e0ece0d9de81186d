#include "vminitd/resolver_files.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

bool isWord(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return static_cast<unsigned char>(c) > ' ' && c != '\x7f';
    });
}

bool isLine(std::string_view text) {
    return std::none_of(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == '\x7f';
    });
}

tl::unexpected<base::Error> wrong(const char* what, std::string_view value) {
    constexpr size_t kShown = 128;
    return fail(Code::kInvalidArgument, std::string("malformed ") + what + " \"" +
                                            base::printable(value.substr(0, kShown)) + "\"");
}

Result<> addLine(std::string& out, const char* key, const char* what,
                 const std::vector<std::string>& words) {
    for (const std::string& word : words) {
        if (!isWord(word)) return wrong(what, word);
    }
    if (!words.empty()) out += key + base::join(words, " ") + "\n";
    return {};
}

}  // namespace

Result<std::string> resolvConf(const DnsConfig& config) {
    std::string out;
    for (const std::string& server : config.nameservers) {
        ARCA_CHECK(addLine(out, "nameserver ", "nameserver", {server}));
    }
    if (config.domain && !config.domain->empty()) {
        ARCA_CHECK(addLine(out, "domain ", "domain", {*config.domain}));
    }
    ARCA_CHECK(addLine(out, "search ", "search domain", config.search_domains));
    ARCA_CHECK(addLine(out, "options ", "option", config.options));
    return out;
}

Result<std::string> hostsText(const std::vector<HostsEntry>& entries,
                              const std::optional<std::string>& comment) {
    std::string out;
    if (comment && !isLine(*comment)) return wrong("comment", *comment);
    if (comment) out += "# " + *comment + "\n";
    for (const HostsEntry& entry : entries) {
        if (!isWord(entry.address)) return wrong("address", entry.address);
        out += entry.address;
        for (const std::string& name : entry.names) {
            if (!isWord(name)) return wrong("host name", name);
            out += " " + name;
        }
        if (entry.comment && !isLine(*entry.comment)) return wrong("comment", *entry.comment);
        if (entry.comment) out += " # " + *entry.comment + " ";
        out += "\n";
    }
    return out;
}

Result<> replaceEtcFile(const GuestPath& location, const std::string& name,
                        const std::string& text) {
    const std::string what = location.text() + "/etc/" + name;
    auto root = location.open(O_PATH | O_DIRECTORY);
    if (!root) return fail(std::move(root).error().withContext(what));
    auto etc = base::makeDirsInRoot(root->get(), "etc", 0755);
    if (!etc) return fail(std::move(etc).error().withContext(what));
    auto replaced = base::replaceFile(etc->get(), name, text, 0644);
    if (!replaced) return fail(std::move(replaced).error().withContext(what));
    return {};
}

}  // namespace arca::vminitd

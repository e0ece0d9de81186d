#include "hooks/tap_forwarder/dhcp_script.h"

#include <unistd.h>

#include <array>
#include <cstdlib>

#include "base/files.h"
#include "base/strings.h"
#include "hooks/tap_forwarder/addresses.h"

namespace arca::tap_forwarder {

namespace {

constexpr std::string_view kMark = "arca-dhcp";
constexpr std::string_view kNone = "-";

enum class Change { kNothing, kLease, kLost };

Change changeOf(std::string_view event) {
    // udhcpc's in small letters, dhclient's in capitals.
    for (const std::string_view one :
         {"bound", "renew", "BOUND", "RENEW", "REBIND", "REBOOT", "TIMEOUT"}) {
        if (event == one) return Change::kLease;
    }
    for (const std::string_view one : {"deconfig", "EXPIRE", "FAIL", "STOP", "RELEASE"}) {
        if (event == one) return Change::kLost;
    }
    return Change::kNothing;
}

// Blanks between the addresses become commas.
std::string listWord(const std::string& addresses) {
    std::string out;
    for (const std::string_view one : base::split(addresses, ' ')) {
        if (one.empty()) continue;
        if (!out.empty()) out += ',';
        out += one;
    }
    return out.empty() ? std::string(kNone) : out;
}

std::string firstOf(const Variable& variable, const char* udhcpc, const char* dhclient) {
    std::string value = variable(udhcpc);
    return value.empty() ? variable(dhclient) : value;
}

std::optional<std::vector<std::string>> parseList(std::string_view word) {
    std::vector<std::string> out;
    if (word == kNone) return out;
    for (const std::string_view one : base::split(word, ',')) {
        out.emplace_back(one);
        if (!checkIpv4(out.back())) return std::nullopt;
    }
    return out;
}

}  // namespace

std::string dhcpLine(std::string_view word, const Variable& variable) {
    const std::string event = word.empty() ? variable("reason") : std::string(word);
    const Change change = changeOf(event);
    if (change == Change::kNothing) return "";
    const std::string mark(kMark);
    if (change == Change::kLost) return mark + " lost\n";
    const std::string address = firstOf(variable, "ip", "new_ip_address");
    const auto prefix = prefixOfMask(firstOf(variable, "subnet", "new_subnet_mask"));
    // Without a netmask the address is all that is known of the network.
    const std::string length = std::to_string(prefix ? *prefix : 32);
    const std::string routers = listWord(firstOf(variable, "router", "new_routers"));
    const std::string names = listWord(firstOf(variable, "dns", "new_domain_name_servers"));
    return mark + " lease " + address + "/" + length + " " + routers + " " + names + "\n";
}

std::optional<DhcpEvent> parseDhcpLine(std::string_view line) {
    const std::vector<std::string_view> words = base::split(line, ' ');
    if (words.size() < 2 || words[0] != kMark) return std::nullopt;
    if (words.size() == 2 && words[1] == "lost") return DhcpEvent{};
    if (words.size() != 5 || words[1] != "lease") return std::nullopt;
    const std::vector<std::string_view> address = base::split(words[2], '/');
    if (address.size() != 2) return std::nullopt;
    const auto length = base::parseNumber<uint32_t>(address[1]);
    if (!length || *length == 0) return std::nullopt;
    auto checked = ipv4WithPrefix(std::string(address[0]), *length);
    auto routers = parseList(words[3]);
    auto names = parseList(words[4]);
    if (!checked || !routers || !names) return std::nullopt;
    return DhcpEvent{Lease{std::move(*checked), std::move(*routers), std::move(*names)}};
}

int runDhcpScript(const std::vector<std::string_view>& args) {
    const auto variable = [](const char* name) {
        const char* value = std::getenv(name);
        return value == nullptr ? std::string() : std::string(value);
    };
    // After the word stands the name under which the kernel found the script.
    const std::string line = dhcpLine(args.size() > 1 ? args[1] : std::string_view(), variable);
    return base::writeAll(STDOUT_FILENO, line) ? 0 : 1;
}

}  // namespace arca::tap_forwarder

// What a DHCP client tells of its lease: it runs a script at each change, which is this program
// again, which writes a line to the client's standard output, which the forwarder reads.
//
// udhcpc and dhclient name their variables differently; after this file there is no difference.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace arca::tap_forwarder {

// First argument of the program when it is run as the script; see DhcpClient.
inline constexpr char kDhcpScriptWord[] = "dhcp-script";

struct Lease {
    std::string address{};               // "a.b.c.d/n"
    std::vector<std::string> routers{};  // the first is the default gateway
    std::vector<std::string> nameservers{};

    friend bool operator==(const Lease&, const Lease&) = default;
};

struct DhcpEvent {
    std::optional<Lease> lease{};  // none: what there was is not valid any more
};

using Variable = std::function<std::string(const char* name)>;  // "" when it is not set

// The line for an event, with its line end; "" for those that change nothing. `word`: the script's
// first argument (udhcpc's way), or empty (dhclient's, which has it in `reason`).
std::string dhcpLine(std::string_view word, const Variable& variable);

// The event of a line; nullopt for any other line, and for one with anything in it that is no
// address, as the values are those of whoever answered on the network.
std::optional<DhcpEvent> parseDhcpLine(std::string_view line);

// The script. `args`: what stands after kDhcpScriptWord.
int runDhcpScript(const std::vector<std::string_view>& args);

}  // namespace arca::tap_forwarder

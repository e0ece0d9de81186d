#include "hooks/tap_forwarder/addresses.h"

#include <arpa/inet.h>

#include <bit>
#include <string_view>
#include <vector>

#include "base/strings.h"

namespace arca::tap_forwarder {

using base::Code;
using base::fail;
using base::Result;

namespace {

constexpr size_t kShownBytes = 64;
constexpr uint32_t kUsualPrefix = 24;
constexpr uint32_t kLongestPrefix = 32;

tl::unexpected<base::Error> malformed(const char* what, const std::string& text) {
    return fail(Code::kInvalidArgument, std::string("malformed ") + what + " \"" +
                                            base::printable(text.substr(0, kShownBytes)) + "\"");
}

// inet_pton(3) stops at a NUL byte, which a string may have in it.
bool isAddress(int family, const std::string& text) {
    in6_addr binary{};
    return text.find('\0') == std::string::npos && ::inet_pton(family, text.c_str(), &binary) == 1;
}

}  // namespace

Result<> checkIpv4(const std::string& address) {
    if (!isAddress(AF_INET, address)) return malformed("IPv4 address", address);
    return {};
}

Result<> checkAddress(const std::string& address) {
    if (isAddress(AF_INET, address) || isAddress(AF_INET6, address)) return {};
    return malformed("IP address", address);
}

Result<std::string> ipv4WithPrefix(const std::string& address, uint32_t prefix_length) {
    ARCA_CHECK(checkIpv4(address));
    if (prefix_length > kLongestPrefix) {
        return fail(Code::kInvalidArgument,
                    "netmask " + std::to_string(prefix_length) + ": not a prefix length of IPv4");
    }
    const uint32_t length = prefix_length == 0 ? kUsualPrefix : prefix_length;
    return address + "/" + std::to_string(length);
}

Result<uint32_t> prefixOfMask(const std::string& mask) {
    in_addr binary{};
    if (!isAddress(AF_INET, mask) || ::inet_pton(AF_INET, mask.c_str(), &binary) != 1) {
        return malformed("netmask", mask);
    }
    const uint32_t bits = ntohl(binary.s_addr);
    const auto length = static_cast<uint32_t>(std::countl_one(bits));
    if (static_cast<uint32_t>(std::popcount(bits)) != length) return malformed("netmask", mask);
    return length;
}

Result<std::string> parseMac(const std::string& text) {
    constexpr size_t kMacBytes = 6;
    const std::vector<std::string_view> parts = base::split(text, ':');
    if (parts.size() != kMacBytes) return malformed("MAC address", text);
    bool zero = true;
    for (const std::string_view part : parts) {
        const auto byte = base::parseNumber<uint8_t>(part, 16);
        if (!byte || part.size() != 2) return malformed("MAC address", text);
        zero = zero && *byte == 0;
    }
    const auto first = base::parseNumber<uint8_t>(parts[0], 16);
    if (zero || (*first & 1U) != 0) {
        return fail(Code::kInvalidArgument, "MAC address " + text + ": not that of an interface");
    }
    return base::toLower(text);
}

}  // namespace arca::tap_forwarder

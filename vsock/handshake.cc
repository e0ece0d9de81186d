#include "vsock/handshake.h"

#include <limits>
#include <optional>

#include "base/strings.h"

namespace arca::vsock {

ConnectLine parseConnectLine(std::string_view received) {
    constexpr std::string_view kWord = "CONNECT ";
    ConnectLine line;
    const size_t end = received.substr(0, kMaxConnectLine).find('\n');
    if (end == std::string_view::npos) {
        if (received.size() >= kMaxConnectLine) line.status = ConnectLine::Status::kMalformed;
        return line;
    }
    line.status = ConnectLine::Status::kMalformed;
    const std::string_view text = received.substr(0, end);
    if (base::toUpper(text.substr(0, kWord.size())) != kWord) return line;
    const std::optional<uint32_t> port = base::parseNumber<uint32_t>(text.substr(kWord.size()));
    if (!port || *port == std::numeric_limits<uint32_t>::max()) return line;
    line.status = ConnectLine::Status::kComplete;
    line.port = *port;
    line.bytes = end + 1;
    return line;
}

std::string acceptLine(uint32_t host_port) {
    return "OK " + std::to_string(host_port) + "\n";
}

}  // namespace arca::vsock

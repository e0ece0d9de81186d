// Questions to a name server and its answers, on a stream: as over TCP, each message has its length
// before it, 2 bytes, big-endian (RFC 1035, 4.2.2).
//
// Between a guest and its host (proto/tap_forwarder.proto, ServeNames) one byte stands before the
// first: how the question is to be asked.
#pragma once

#include <netinet/in.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/data_channel.h"
#include "base/result.h"

namespace arca::base {

inline constexpr char kByDatagram = 'U';  // one question, one answer
inline constexpr char kByStream = 'T';    // any number, one after the other
inline constexpr uint16_t kDnsPort = 53;
inline constexpr size_t kDnsHeaderBytes = 12;
inline constexpr size_t kMaxDnsBytes = 65535;

// The name server's port at the IPv4 address; nullopt when it is none.
std::optional<sockaddr_in> nameServerAt(const std::string& address);

// The next message; nullopt when the stream has ended before one. kInvalidArgument for one that is
// shorter than a header, or is not whole.
Result<std::optional<std::string>> readDnsMessage(DataChannel& channel);

// `message`: of kMaxDnsBytes at most.
Result<> writeDnsMessage(DataChannel& channel, std::string_view message);

// `answer` as it may go into one datagram to who asked `question`: whole, or, when it is too long,
// as a short one that says so, upon which the question is asked again over TCP.
std::string fitDatagram(std::string_view question, std::string answer);

}  // namespace arca::base

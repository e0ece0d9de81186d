#include "base/dns_stream.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace arca::base {

namespace {

// What everybody takes, and what those take that have said so in an OPT record (RFC 6891).
constexpr size_t kPlainBytes = 512;
constexpr size_t kExtendedBytes = 1232;
constexpr unsigned kByteBits = 8;
constexpr unsigned kByteMask = 0xff;

// Offsets in the header.
constexpr size_t kFlags = 2;
constexpr size_t kQuestionCount = 4;
constexpr size_t kAdditionalCount = 10;
constexpr char kIsAnswer = static_cast<char>(0x80);
constexpr char kTruncated = 0x02;

// Up to `size` bytes: fewer only at the end of the stream.
Result<std::string> readUpTo(DataChannel& channel, size_t size) {
    std::string data(size, '\0');
    size_t got = 0;
    while (got < size) {
        ARCA_TRY(const size_t n, channel.read(data.data() + got, size - got));
        if (n == 0) break;
        got += n;
    }
    data.resize(got);
    return data;
}

}  // namespace

std::optional<sockaddr_in> nameServerAt(const std::string& address) {
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = htons(kDnsPort);
    // inet_pton(3) stops at a NUL byte, which a string may have in it.
    if (address.find('\0') != std::string::npos ||
        ::inet_pton(AF_INET, address.c_str(), &place.sin_addr) != 1) {
        return std::nullopt;
    }
    return place;
}

Result<std::optional<std::string>> readDnsMessage(DataChannel& channel) {
    constexpr size_t kLengthBytes = 2;
    ARCA_TRY(const std::string head, readUpTo(channel, kLengthBytes));
    if (head.empty()) return std::optional<std::string>();
    const auto cut = [] { return fail(Code::kInvalidArgument, "a DNS message that is not whole"); };
    if (head.size() < kLengthBytes) return cut();
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(head[at]); };
    const size_t length = static_cast<size_t>(byte(0)) << kByteBits | byte(1);
    if (length < kDnsHeaderBytes) {
        return fail(Code::kInvalidArgument,
                    "a DNS message of " + std::to_string(length) + " bytes: shorter than a header");
    }
    ARCA_TRY(std::string message, readUpTo(channel, length));
    if (message.size() < length) return cut();
    return std::optional(std::move(message));
}

Result<> writeDnsMessage(DataChannel& channel, std::string_view message) {
    std::string whole{static_cast<char>(message.size() >> kByteBits & kByteMask),
                      static_cast<char>(message.size() & kByteMask)};
    whole += message;
    return channel.write(whole);
}

std::string fitDatagram(std::string_view question, std::string answer) {
    const bool extended = question.size() >= kDnsHeaderBytes &&
                          (question[kAdditionalCount] != 0 || question[kAdditionalCount + 1] != 0);
    if (answer.size() <= (extended ? kExtendedBytes : kPlainBytes)) return answer;
    answer.resize(kDnsHeaderBytes);
    answer[kFlags] = static_cast<char>(answer[kFlags] | kIsAnswer | kTruncated);
    // Nothing follows the header, so it counts nothing.
    std::fill(answer.begin() + kQuestionCount, answer.end(), '\0');
    return answer;
}

}  // namespace arca::base

#include "base/data_channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

namespace arca::base {

DataChannel::DataChannel(UniqueFd socket, const StopSignal& stop,
                         std::chrono::milliseconds stall_limit)
    : socket_(std::move(socket)), stop_(stop), stall_limit_(stall_limit) {}

Result<> DataChannel::wait(short events) {
    const auto deadline = std::chrono::steady_clock::now() + stall_limit_;
    while (true) {
        if (stop_.isSet()) return fail(Code::kUnavailable, "cancelled");
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
            return fail(Code::kDeadlineExceeded, "data channel: nothing moved for " +
                                                     std::to_string(stall_limit_.count()) + " ms");
        }
        std::array<pollfd, 2> entries{{{socket_.get(), events, 0}, {stop_.fd(), POLLIN, 0}}};
        const int n = ::poll(entries.data(), entries.size(), static_cast<int>(left.count()));
        if (n < 0 && errno != EINTR) return failErrno("poll");
        if (n > 0 && entries[0].revents != 0) return {};
    }
}

Result<size_t> DataChannel::read(char* to, size_t size) {
    while (true) {
        const ssize_t n = ::recv(socket_.get(), to, size, MSG_DONTWAIT);
        if (n >= 0) {
            if (stop_.isSet()) return fail(Code::kUnavailable, "cancelled");
            return static_cast<size_t>(n);
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            ARCA_CHECK(wait(POLLIN));
        } else if (errno != EINTR) {
            return fail(Code::kUnavailable, "data channel: " + errnoText(errno), errno);
        }
    }
}

Result<> DataChannel::write(std::string_view data) {
    while (!data.empty()) {
        const ssize_t n =
            ::send(socket_.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            if (stop_.isSet()) return fail(Code::kUnavailable, "cancelled");
            data.remove_prefix(static_cast<size_t>(n));
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            ARCA_CHECK(wait(POLLOUT));
        } else if (errno != EINTR) {
            return fail(Code::kUnavailable, "data channel: " + errnoText(errno), errno);
        }
    }
    return {};
}

void DataChannel::finishWriting() {
    (void)::shutdown(socket_.get(), SHUT_WR);
}

}  // namespace arca::base

#include "base/pump.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/files.h"

namespace arca::base {
namespace {

constexpr size_t kBufferBytes = size_t{64} << 10U;
constexpr size_t kPageBytes = 4096;
// After so much other streams get their turn.
constexpr int kRoundsATurn = 8;
constexpr std::chrono::milliseconds kHangupPause{50};
// A stream is a bulk one when so much passes in less than the time, and none any more when not.
constexpr size_t kBulkRateBytes = size_t{4} << 20U;
constexpr std::chrono::milliseconds kBulkRateTime{1000};

// Of the process; pumps of several loops take from it.
std::atomic<int> grown_pumps{0};

bool takeBulkPlace() {
    if (grown_pumps.fetch_add(1) < Pump::kBulkPumps) return true;
    grown_pumps.fetch_sub(1);
    return false;
}

bool isA(int fd, mode_t type) {
    struct stat st {};
    return ::fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type;
}

bool wouldBlock(int error) {
    return error == EAGAIN || error == EWOULDBLOCK;
}

}  // namespace

UniqueFd unshared(UniqueFd fd, int access_mode) {
    if (!isA(fd.get(), S_IFIFO) && ::isatty(fd.get()) != 1) return fd;
    const int flags = access_mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    UniqueFd own(::open(fdPath(fd.get()).c_str(), flags));
    return own.valid() ? std::move(own) : std::move(fd);
}

Pump::Pump(EventLoop& loop, UniqueFd in, UniqueFd out, Done done, Hangup hangup)
    : loop_(loop),
      in_(std::move(in)),
      out_(std::move(out)),
      done_(std::move(done)),
      hangup_(hangup),
      in_socket_(isA(in_.get(), S_IFSOCK)),
      out_socket_(isA(out_.get(), S_IFSOCK)),
      in_blocks_(!in_socket_ && (::fcntl(in_.get(), F_GETFL) & O_NONBLOCK) == 0),
      out_blocks_(!out_socket_ && (::fcntl(out_.get(), F_GETFL) & O_NONBLOCK) == 0) {}

Pump::~Pump() = default;

std::shared_ptr<Pump> Pump::start(EventLoop& loop, UniqueFd in, UniqueFd out, Done done,
                                  Hangup hangup) {
    std::shared_ptr<Pump> pump(
        new Pump(loop, std::move(in), std::move(out), std::move(done), hangup));
    pump->self_ = pump;
    pump->wait(Wait::kIn);
    return pump;
}

bool Pump::ready(int fd, short events) {
    pollfd entry{fd, events, 0};
    return ::poll(&entry, 1, 0) != 0;
}

void Pump::finish() {
    if (finishing_ || source_ended_ || !in_.valid()) return;
    finishing_ = true;
    // By a task: the caller need not expect `done` from inside this call.
    again_ =
        Timer(loop_, std::chrono::milliseconds(0), [self = shared_from_this()] { self->step(); });
}

void Pump::abandon() {
    done_ = nullptr;
    end();
}

void Pump::hold(bool held) {
    if (held_ == held) return;
    held_ = held;
    if (in_.valid() && empty()) wait(Wait::kIn);
}

void Pump::wait(Wait what) {
    const bool read = what == Wait::kIn && !held_ && in_.valid();
    const bool write = what == Wait::kOut && out_.valid();
    const auto retry = [this](std::chrono::milliseconds pause) {
        again_ = Timer(loop_, pause, [self = shared_from_this()] { self->step(); });
    };
    const auto set = [this](Watch& watch, int fd, bool wanted, uint32_t events, bool& polls) {
        if (!wanted) return watch.reset();
        if (watch.active() || !polls) return;
        auto made = Watch::make(loop_, fd, events, [this](uint32_t) {
            const auto keep = shared_from_this();
            step();
        });
        polls = made.has_value();
        if (made) watch = std::move(*made);
    };
    set(in_watch_, in_.get(), read, EPOLLIN, in_polls_);
    set(out_watch_, out_.get(), write, EPOLLOUT, out_polls_);
    const bool always_ready = (read && !in_polls_) || (write && !out_polls_);
    if (always_ready) retry(std::chrono::milliseconds(0));
}

void Pump::step() {
    const auto keep = shared_from_this();
    for (int round = 0; round < kRoundsATurn; ++round) {
        if (ended()) return;
        if (!drain()) return;
        if (source_ended_) return end();
        if (held_ && !finishing_) return wait(Wait::kNothing);
        if (!fill()) return;
    }
    if (source_ended_ && empty()) return end();
    // More than its share: the level-triggered watch calls again.
    wait(empty() ? Wait::kIn : Wait::kOut);
}

ssize_t Pump::readSome() {
    if (in_blocks_ && !ready(in_.get(), POLLIN)) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t n = 0;
    do {
        n = in_socket_ ? ::recv(in_.get(), memory_.get(), capacity(), MSG_DONTWAIT)
                       : ::read(in_.get(), memory_.get(), capacity());
    } while (n < 0 && errno == EINTR);
    return n;
}

bool Pump::fill() {
    // Kept while the stream flows: a heap that grows and shrinks for each piece costs more than
    // the copying.
    if (may_grow_ && !grown_ && moved_ >= kBulkRateBytes) growIfFast();
    if (!memory_) memory_ = std::make_unique_for_overwrite<char[]>(capacity());
    const ssize_t n = readSome();
    const int error = errno;
    buffer_at_ = 0;
    buffer_end_ = n > 0 ? static_cast<size_t>(n) : 0;
    if (n > 0) {
        moved_ += static_cast<size_t>(n);
        if (!finishing_) return true;
        drained_ += static_cast<size_t>(n);
        if (drained_ >= kDrainBytes) sourceEnded();
        return true;
    }
    const bool nothing_now = n < 0 && wouldBlock(error);
    if (!grown_ || !nothing_now) memory_.reset();
    const bool paused = n < 0 && error == EIO && hangup_ == Hangup::kPauses;
    if ((nothing_now || paused) && !finishing_) {
        if (nothing_now) {
            wait(Wait::kIn);
        } else {
            // The hang-up would wake the loop all the time.
            wait(Wait::kNothing);
            again_ = Timer(loop_, kHangupPause, [self = shared_from_this()] { self->step(); });
        }
        return false;
    }
    sourceEnded();
    return true;
}

bool Pump::drain() {
    while (!empty()) {
        size_t left = buffer_end_ - buffer_at_;
        if (out_blocks_) {
            if (!ready(out_.get(), POLLOUT)) {
                wait(Wait::kOut);
                return false;
            }
            left = std::min(left, kPageBytes);
        }
        const char* data = memory_.get() + buffer_at_;
        const ssize_t n = out_socket_ ? ::send(out_.get(), data, left, MSG_NOSIGNAL | MSG_DONTWAIT)
                                      : ::write(out_.get(), data, left);
        if (n >= 0) {
            buffer_at_ += static_cast<size_t>(n);
            continue;
        }
        if (errno == EINTR) continue;
        if (wouldBlock(errno)) {
            wait(Wait::kOut);
            return false;
        }
        end();
        return false;
    }
    return true;
}

size_t Pump::capacity() const {
    return grown_ ? kBulkBytes : kBufferBytes;
}

void Pump::growIfFast() {
    const auto now = EventLoop::Clock::now();
    const bool fast = now - counted_from_ < kBulkRateTime;
    counted_from_ = now;
    moved_ = 0;
    if (!fast || !takeBulkPlace()) return;
    grown_ = true;
    memory_.reset();
    resizePipes(kBulkBytes);
    idle_check_ = Timer(loop_, kBulkRateTime, [this] { shrinkIfIdle(); });
}

void Pump::shrinkIfIdle() {
    if (std::exchange(moved_, 0) < kBulkRateBytes && empty()) return shrink();
    idle_check_ = Timer(loop_, kBulkRateTime, [this] { shrinkIfIdle(); });
}

void Pump::shrink() {
    if (!std::exchange(grown_, false)) return;
    idle_check_.reset();
    grown_pumps.fetch_sub(1);
    memory_.reset();
    resizePipes(kBufferBytes);
}

// A pipe that holds more than that stays as it is, and one may be refused to a user without
// privileges: then it works as before, only slower.
void Pump::resizePipes(size_t bytes) const {
    for (const UniqueFd* fd : {&in_, &out_})
        if (fd->valid()) (void)::fcntl(fd->get(), F_SETPIPE_SZ, static_cast<int>(bytes));
}

void Pump::sourceEnded() {
    source_ended_ = true;
    in_watch_.reset();
    in_.reset();
}

void Pump::end() {
    const size_t lost = buffer_end_ - buffer_at_;
    again_.reset();
    in_watch_.reset();
    out_watch_.reset();
    if (out_.valid() && out_socket_) (void)::shutdown(out_.get(), SHUT_WR);
    // Of a socket that others hold too, the writing end learns that nobody reads any more.
    if (in_.valid() && in_socket_ && lost > 0) (void)::shutdown(in_.get(), SHUT_RD);
    in_.reset();
    out_.reset();
    memory_.reset();
    buffer_at_ = buffer_end_ = 0;
    shrink();
    const auto keep = std::exchange(self_, nullptr);
    const auto done = std::exchange(done_, nullptr);
    if (done) done(lost);
}

}  // namespace arca::base

#include "vminitd/vm_stdio.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/pipe.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::failErrno;
using base::Pump;
using base::Result;
using base::UniqueFd;

namespace {

// The child puts its ends onto 0 to 2; they must not be one of those already.
Result<UniqueFd> aboveStdio(UniqueFd fd) {
    if (fd.get() > 2) return fd;
    UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
    if (!moved.valid()) return failErrno("move a descriptor");
    return moved;
}

Result<UniqueFd> openNull(int access_mode) {
    ARCA_TRY(UniqueFd null, base::openAt(AT_FDCWD, "/dev/null", access_mode));
    return aboveStdio(std::move(null));
}

struct Pipe {
    UniqueFd ours;    // does not block
    UniqueFd childs;  // does: it is the program's
};

enum class Direction { kToChild, kFromChild };

Result<Pipe> makePipe(Direction direction) {
    ARCA_TRY(base::Pipe ends, base::makePipe());
    const bool to_child = direction == Direction::kToChild;
    Pipe pipe{std::move(to_child ? ends.write_end : ends.read_end),
              std::move(to_child ? ends.read_end : ends.write_end)};
    // Each end is a description of its own, so the program's is not changed by this.
    if (::fcntl(pipe.ours.get(), F_SETFL, O_NONBLOCK) != 0) return failErrno("set O_NONBLOCK");
    return pipe;
}

}  // namespace

// The connections under way.
struct VmStdio::Dial : std::enable_shared_from_this<VmStdio::Dial> {
    Dial(EventLoop& event_loop, base::Transport& the_transport)
        : loop(event_loop), transport(the_transport) {}

    void next() {
        while (at < kStreams && !ports[at]) ++at;
        if (at == kStreams) return finish(std::exchange(stdio, nullptr));
        auto begun = transport.beginDial(*ports[at]);
        if (!begun) return refused(begun.error());
        socket = std::move(*begun);
        auto made = Watch::make(loop, socket.get(), EPOLLOUT,
                                [self = shared_from_this()](uint32_t) { self->settled(); });
        if (!made) return finish(fail(std::move(made).error()));
        watch = std::move(*made);
        timer = Timer(loop, kDialLimit, [self = shared_from_this()] {
            self->refused(base::Error(Code::kDeadlineExceeded, "timed out"));
        });
    }

    void settled() {
        const auto keep = shared_from_this();
        watch.reset();
        timer.reset();
        auto done = base::finishDial(socket.get());
        if (!done) return refused(done.error());
        stdio->sockets_[at++] = std::move(socket);
        next();
    }

    void refused(const base::Error& why) {
        const auto keep = shared_from_this();
        finish(fail(Code::kInternal, "could not connect to socket on port " +
                                         std::to_string(*ports[at]) + ": " + why.message()));
    }

    void finish(Result<std::shared_ptr<VmStdio>> result) {
        watch.reset();
        timer.reset();
        stdio.reset();
        const auto told = std::exchange(dialled, nullptr);
        if (told) told(std::move(result));
    }

    EventLoop& loop;
    base::Transport& transport;
    std::array<std::optional<uint32_t>, kStreams> ports;
    size_t at = 0;
    std::shared_ptr<VmStdio> stdio;
    Dialled dialled;
    UniqueFd socket;
    Watch watch;
    Timer timer;
};

void VmStdio::dial(EventLoop& loop, base::Transport& transport, const StdioPorts& ports,
                   bool terminal, Dialled dialled) {
    auto dial = std::make_shared<Dial>(loop, transport);
    dial->ports = {ports.in, ports.out, terminal ? std::nullopt : ports.err};
    dial->stdio = std::shared_ptr<VmStdio>(new VmStdio(loop, terminal));
    dial->dialled = std::move(dialled);
    dial->next();
}

VmStdio::~VmStdio() {
    abandon();
}

void VmStdio::startPump(Stream stream, UniqueFd from, UniqueFd to, Pump::Hangup hangup) {
    pumps_[stream] = Pump::start(
        loop_, std::move(from), std::move(to),
        [weak = weak_from_this(), stream](size_t) {
            if (const auto self = weak.lock()) self->pumpEnded(stream);
        },
        hangup);
}

Result<VmStdio::ChildEnds> VmStdio::pipes() {
    ChildEnds ends;
    for (const Stream stream : {kIn, kOut, kErr}) {
        const bool input = stream == kIn;
        UniqueFd& end = input ? ends.in : (stream == kOut ? ends.out : ends.err);
        UniqueFd socket = std::move(sockets_[stream]);
        if (!socket.valid() || terminal_) {
            // With a terminal the sockets wait for its master.
            sockets_[stream] = std::move(socket);
            ARCA_TRY(end, openNull(terminal_ ? O_RDWR : (input ? O_RDONLY : O_WRONLY)));
            continue;
        }
        ARCA_TRY(Pipe pipe, makePipe(input ? Direction::kToChild : Direction::kFromChild));
        end = std::move(pipe.childs);
        if (input) {
            startPump(stream, std::move(socket), std::move(pipe.ours), Pump::Hangup::kEnds);
        } else {
            startPump(stream, std::move(pipe.ours), std::move(socket), Pump::Hangup::kEnds);
        }
        pumps_[stream]->mayGrow();
    }
    return ends;
}

Result<> VmStdio::useTerminal(int master) {
    const auto copy = [master]() -> Result<UniqueFd> {
        UniqueFd fd(::fcntl(master, F_DUPFD_CLOEXEC, 3));
        if (!fd.valid()) return failErrno("dup the terminal");
        return fd;
    };
    // vmexec has closed its own: nobody else shares the description.
    if (::fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK) != 0) return failErrno("set O_NONBLOCK");
    ARCA_TRY(master_, copy());
    if (sockets_[kIn].valid()) {
        ARCA_TRY(UniqueFd to, copy());
        startPump(kIn, std::move(sockets_[kIn]), std::move(to), Pump::Hangup::kEnds);
    }
    // Without a reader the program would stop once the terminal is full.
    if (!sockets_[kOut].valid()) {
        ARCA_TRY(sockets_[kOut], openNull(O_WRONLY));
    }
    ARCA_TRY(UniqueFd from, copy());
    startPump(kOut, std::move(from), std::move(sockets_[kOut]), Pump::Hangup::kPauses);
    return {};
}

Result<> VmStdio::resize(TerminalSize size) {
    if (!terminal_) return fail(Code::kUnsupported, "resize not supported");
    // Not attached yet, or hung up: nobody to tell.
    if (!master_.valid()) return {};
    winsize window{};
    window.ws_row = size.rows;
    window.ws_col = size.columns;
    if (::ioctl(master_.get(), TIOCSWINSZ, &window) != 0) return failErrno("set terminal size");
    return {};
}

void VmStdio::closeStdin() {
    if (pumps_[kIn]) return pumps_[kIn]->finish();
    sockets_[kIn].reset();
}

void VmStdio::pumpEnded(Stream stream) {
    pumps_[stream].reset();
    // Nobody reads the terminal any more: the program is hung up, as when any terminal goes.
    if (terminal_ && stream == kOut && !closed_) {
        if (pumps_[kIn]) std::exchange(pumps_[kIn], nullptr)->abandon();
        master_.reset();
    }
    if (closed_ && !pumps_[kOut] && !pumps_[kErr]) reportClosed();
}

void VmStdio::processExited(std::function<void()> closed) {
    // What the host still sends has no reader.
    if (pumps_[kIn]) std::exchange(pumps_[kIn], nullptr)->abandon();
    for (UniqueFd& socket : sockets_) socket.reset();
    closed_ = std::move(closed);
    if (!pumps_[kOut] && !pumps_[kErr]) return reportClosed();
    for (const Stream stream : {kOut, kErr}) {
        if (pumps_[stream]) pumps_[stream]->finish();
    }
    drain_timer_ = Timer(loop_, kDrainLimit, [self = shared_from_this()] {
        base::log::debug("a reader holds up the end of a stream");
        // The pumps go on by themselves, for as long as the host keeps its end open.
        for (auto& pump : self->pumps_) pump.reset();
        self->reportClosed();
    });
}

void VmStdio::reportClosed() {
    const auto keep = shared_from_this();
    drain_timer_.reset();
    master_.reset();
    const auto closed = std::exchange(closed_, nullptr);
    if (closed) closed();
}

void VmStdio::abandon() {
    drain_timer_.reset();
    for (auto& pump : pumps_) {
        if (pump) std::exchange(pump, nullptr)->abandon();
    }
    for (UniqueFd& socket : sockets_) socket.reset();
    master_.reset();
}

}  // namespace arca::vminitd

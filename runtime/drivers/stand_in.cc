#include "runtime/drivers/stand_in.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/pipe.h"
#include "base/socket.h"
#include "runtime/programs.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr std::chrono::seconds kReadyPatience{20};

Result<> waitReady(int ready_fd) {
    ARCA_TRY(const bool readable, base::waitReadable(ready_fd, kReadyPatience));
    if (!readable) return fail(Code::kDeadlineExceeded, "the stand-in does not get ready");
    std::array<char, 256> text;
    ssize_t n = 0;
    do {
        n = ::read(ready_fd, text.data(), text.size());
    } while (n < 0 && errno == EINTR);
    if (n == 1) return {};
    // What it has to say instead of the one byte is why it ended.
    if (n > 1) return fail(Code::kSystem, std::string(text.data(), static_cast<size_t>(n)));
    return fail(Code::kInternal, "the stand-in ended before it was ready");
}

}  // namespace

Result<StandIn> StandIn::start(const Options& options) {
    ARCA_TRY(const Program program, findProgram("arca-standin"));
    ARCA_TRY(base::SocketPair lease, base::socketPair(SOCK_SEQPACKET));
    ARCA_TRY(base::Pipe pipe, base::makePipe());
    const UniqueFd ready = std::move(pipe.read_end);
    UniqueFd ready_write = std::move(pipe.write_end);
    ARCA_TRY(const UniqueFd null, base::openAt(AT_FDCWD, "/dev/null", O_RDWR));
    std::vector<std::string> words{"arca-standin", "--lease-fd", std::to_string(lease.second.get()),
                                   "--ready-fd", std::to_string(ready_write.get())};
    std::vector<int> kept{lease.second.get(), ready_write.get()};
    if (options.log >= 0) {
        words.insert(words.end(), {"--log-fd", std::to_string(options.log)});
        kept.push_back(options.log);
    }
    UniqueFd network;
    if (!options.network_namespace.empty()) {
        ARCA_TRY(network, base::openAt(AT_FDCWD, options.network_namespace, O_RDONLY));
        words.insert(words.end(), {"--join-fd", std::to_string(network.get())});
        kept.push_back(network.get());
    } else if (options.new_network_namespace) {
        words.insert(words.end(), {"--unshare", std::to_string(CLONE_NEWNET)});
    }
    if (options.terminal >= 0) words.emplace_back("--terminal");
    words.insert(words.end(), {"--title", options.title});
    const std::vector<char*> argv = base::execPointers(words);
    const int stdio = options.terminal >= 0 ? options.terminal : null.get();
    ARCA_TRY(const base::StartedProgram started, base::startProgram({.program_fd = program.fd.get(),
                                                                     .stdio = {stdio, stdio, stdio},
                                                                     .first_closed = 3,
                                                                     .kept = kept.data(),
                                                                     .kept_count = kept.size(),
                                                                     .argv = argv.data(),
                                                                     .envp = environ}));
    StandIn made;
    made.identity_.pid = started.pid;
    made.lease_ = std::move(lease.first);
    if (started.error != 0) return failErrno("exec " + program.path, started.error);
    ready_write.reset();
    ARCA_CHECK(waitReady(ready.get()));
    ARCA_TRY(made.identity_.start_time_ticks, base::processStartTime(started.pid));
    return made;
}

StandIn::StandIn(StandIn&& other) noexcept
    : identity_(std::exchange(other.identity_, {})), lease_(std::move(other.lease_)) {}

StandIn::~StandIn() {
    if (identity_.pid == 0) return;
    (void)::kill(identity_.pid, SIGKILL);  // not reaped yet, so the number is still its own
    (void)base::reapChild(identity_.pid);
}

}  // namespace arca::runtime

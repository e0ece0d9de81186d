#include "vminitd/container_init.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>

#include "base/process.h"
#include "base/result.h"

namespace arca::vminitd {

namespace {

constexpr int kNotFoundStatus = 127;
constexpr int kCannotRunStatus = 126;

// The kernel tells of a fault of our own by these; they cannot be waited for.
constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

sigset_t everySignal() {
    sigset_t set;
    (void)::sigfillset(&set);
    for (const int number : kFaults) (void)::sigdelset(&set, number);
    return set;
}

void becomeReaper() {
    if (::getpid() != 1) (void)::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

void complain(const std::string& text) {
    (void)std::fprintf(stderr, "init: %s\n", text.c_str());
}

// CHILD SIDE
[[noreturn]] void runCommand(char* const* argv, const sigset_t& mask) noexcept {
    (void)::setpgid(0, 0);
    // SIGTTOU is blocked still: a background group may do this.
    if (::isatty(STDIN_FILENO) == 1) (void)::tcsetpgrp(STDIN_FILENO, ::getpid());
    (void)::sigprocmask(SIG_SETMASK, &mask, nullptr);
    (void)::execvp(argv[0], argv);
    const int why = errno;
    complain(std::string(argv[0]) + ": " + base::errnoText(why));
    ::_exit(why == ENOENT ? kNotFoundStatus : kCannotRunStatus);
}

// Reaps all that have ended; the exit code of `pid` when it is among them.
std::optional<int> reapAll(pid_t pid) {
    std::optional<int> code;
    int status = 0;
    while (true) {
        const pid_t ended = ::waitpid(-1, &status, WNOHANG | __WALL);
        if (ended < 0 && errno == EINTR) continue;
        if (ended <= 0) return code;
        if (ended == pid) code = base::exitCodeFromWaitStatus(status);
    }
}

}  // namespace

int runContainerInit(const std::vector<std::string>& args, bool whole_group) {
    becomeReaper();
    const sigset_t waited = everySignal();
    sigset_t before;
    if (::sigprocmask(SIG_SETMASK, &waited, &before) != 0) return kCannotRunStatus;
    std::vector<char*> argv;
    for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) runCommand(argv.data(), before);
    if (pid < 0) {
        complain("fork: " + base::errnoText(errno));
        return kCannotRunStatus;
    }
    (void)::setpgid(pid, pid);  // both sides do it: whoever comes first
    while (true) {
        siginfo_t info{};
        const int number = ::sigwaitinfo(&waited, &info);
        if (number < 0) continue;  // EINTR: stopped and continued
        if (number == SIGCHLD) {
            const auto code = reapAll(pid);
            if (code) return *code;
            continue;
        }
        (void)::kill(whole_group ? -pid : pid, number);
    }
}

int runPause() {
    sigset_t waited;
    (void)::sigemptyset(&waited);
    for (const int number : {SIGCHLD, SIGINT, SIGTERM}) (void)::sigaddset(&waited, number);
    if (::sigprocmask(SIG_BLOCK, &waited, nullptr) != 0) return 1;
    if (::getpid() != 1) (void)std::fputs("pause: warning: not the first process\n", stderr);
    becomeReaper();
    while (true) {
        siginfo_t info{};
        const int number = ::sigwaitinfo(&waited, &info);
        if (number == SIGINT || number == SIGTERM) return 0;
        (void)reapAll(0);
    }
}

}  // namespace arca::vminitd

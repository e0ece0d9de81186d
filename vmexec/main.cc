// vmexec: makes one process of a container. Executed by arca-runtime and vminitd, never by hand.
//
//   vmexec --sync-fd N    N: a SOCK_SEQPACKET socket, over which the rest is said
//                         (proto/body_protocol.h)
//   vmexec --version
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string_view>

#include "base/strings.h"
#include "spec/version.h"
#include "vmexec/signals.h"
#include "vmexec/stage1.h"

namespace {

constexpr int kUsageStatus = 2;

int usage() {
    (void)std::fputs("usage: vmexec --sync-fd N | --version\n", stderr);
    return kUsageStatus;
}

// A caller may have closed some of 0 to 2; what is opened later must not become the program's
// stdio.
void fillStdio() {
    for (int fd = 0; fd < 3; ++fd) {
        // The lowest free number is given out, which is this one.
        if (::fcntl(fd, F_GETFD) < 0) {
            [[maybe_unused]] const int opened =
                ::open("/dev/null", O_RDWR);  // NOLINT(android-cloexec-open): stdio is inherited
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    // Before anything of the container can look at this process: /proc/PID of one that may not be
    // dumped belongs to the host's root (CVE-2019-5736, CVE-2024-21626).
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return 1;
    if (argc == 2 && std::string_view(argv[1]) == "--version") {
        (void)std::printf("vmexec version %s\n", arca::spec::kProjectVersion);
        return 0;
    }
    if (argc != 3 || std::string_view(argv[1]) != "--sync-fd") return usage();
    const auto number = arca::base::parseNumber<int>(argv[2]);
    if (!number || *number < 3 || ::fcntl(*number, F_SETFD, FD_CLOEXEC) != 0) return usage();
    fillStdio();
    arca::vmexec::takeOverSignals();
    try {
        arca::vmexec::stage1Main(arca::base::UniqueFd(*number));
    } catch (const std::exception&) {
        // Out of memory: nothing can be said; the agent sees the end of the socket.
        return 1;
    }
}

#include "vminitd/vm_power.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "base/log.h"
#include "vminitd/mount_table.h"
#include "vminitd/supervisor.h"

namespace arca::vminitd {

namespace {

constexpr std::chrono::milliseconds kKillLimit{3'000};
// A disk or share whose other side has gone must not keep the VM.
constexpr std::chrono::milliseconds kUnmountLimit{10'000};

void onCrash(int number) {
    constexpr char kText[] = "vminitd: crashed, powering off\n";
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, kText, sizeof kText - 1);
    (void)number;
    powerOff();
}

// What the agent itself needs to the end.
bool isOwn(const std::string& point) {
    for (const char* own : {"/", "/proc", "/sys", "/dev", "/run", "/sys/fs/cgroup"}) {
        if (point == own) return true;
    }
    return false;
}

void unmountEverything() {
    ::sync();
    auto points = mountPoints();
    if (!points) return base::log::error(points.error().message());
    std::reverse(points->begin(), points->end());
    for (const std::string& point : *points) {
        if (isOwn(point) || ::umount2(point.c_str(), UMOUNT_NOFOLLOW) == 0) continue;
        // In use to the end: at least nothing is half written.
        (void)::mount(nullptr, point.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
    }
    ::sync();
}

}  // namespace

void powerOff() noexcept {
    ::sync();
    (void)::reboot(RB_POWER_OFF);
    while (true) (void)::pause();  // a machine that cannot: halted
}

void powerOffOnCrash() {
    struct sigaction action {};
    action.sa_handler = &onCrash;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (const int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP}) {
        (void)::sigaction(number, &action, nullptr);
    }
}

void VmPower::prepare(std::function<void()> ready) {
    if (prepared_) return ready();
    waiting_.push_back(std::move(ready));
    if (std::exchange(begun_, true)) return;
    base::log::info("shutting down");
    const auto gone = [this] {
        // -1: everything but this process. Again each time, for what was born meanwhile.
        (void)::kill(-1, SIGKILL);
        return !Supervisor::hasChildren() && !agent_.exitsUnderWay();
    };
    retryUntil(loop_, kKillLimit, gone, [this](bool all) {
        if (!all) base::log::warning("some processes are still there");
        unmount();
    });
}

void VmPower::unmount() {
    limit_ = Timer(loop_, kUnmountLimit, [this] {
        base::log::error("unmounting takes too long");
        prepared();
    });
    std::thread([this] {
        unmountEverything();
        loop_.post([this] { prepared(); });
    }).detach();
}

void VmPower::prepared() {
    limit_.reset();
    prepared_ = true;
    for (const auto& ready : std::exchange(waiting_, {})) ready();
}

void VmPower::shutDown() {
    prepare([] { powerOff(); });
}

}  // namespace arca::vminitd

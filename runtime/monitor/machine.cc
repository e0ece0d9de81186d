#include "runtime/monitor/machine.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/mount_api.h"
#include "base/process.h"
#include "base/signals.h"
#include "base/socket.h"
#include "base/strings.h"
#include "proto/monitor_protocol.h"

namespace arca::runtime {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t kTailBytes = 2048;
constexpr size_t kConsoleLogBytes = size_t{1} << 20U;
constexpr std::chrono::milliseconds kCauseLimit{500};
constexpr char kConsoleLog[] = "console.log";
constexpr char kFsSocket[] = "fs.sock";

// A file for the guest's memory, in huge pages: an emulated boot is a tenth shorter for it. It is
// on a tmpfs of its own, which is mounted nowhere, since the pages of a memfd are what the host's
// settings say, small ones mostly. Invalid: not here (no transparent huge pages, no privileges).
UniqueFd hugeMemory(const MonitorConfig& config) {
    const auto mount = base::makeFilesystem(
        {.type = "tmpfs",
         .source = "arca",
         .attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
         .data = {"huge=within_size", "mode=0700",
                  "size=" + std::to_string(config.memory_mib) + "M"}});
    if (!mount) return UniqueFd();
    auto file = base::openAt(mount->get(), ".", O_TMPFILE | O_RDWR, 0600);
    return file ? std::move(*file) : UniqueFd();
}

// What QEMU inherits besides descriptor 3, by number; -1: not there.
struct QemuFds {
    int card = -1;    // of the TAP device
    int memory = -1;  // the file for the guest's memory
};

std::string memoryObject(const std::string& size, const QemuFds& fds) {
    // Not aligned, no page of the mapping would be a huge one.
    const std::string backend =
        fds.memory < 0
            ? "memory-backend-memfd"
            : "memory-backend-file,align=2M,mem-path=/proc/self/fd/" + std::to_string(fds.memory);
    return backend + ",id=mem,share=on,size=" + size;
}

// A guest reads whatever is on its bus; it gets what it needs and no more.
std::vector<std::string> qemuArguments(const MonitorConfig& config, const KernelVsock* vsock,
                                       const QemuFds& fds) {
    const bool kvm = config.accel == "kvm";
    // Unpacking itself is a fifth of a kernel's emulated start, and next to nothing of a real one,
    // which gets its address at random by it.
    const std::string& kernel =
        kvm || config.emulated_kernel.empty() ? config.kernel : config.emulated_kernel;
    const std::string memory = std::to_string(config.memory_mib) + "M";
    // TCG does `rep movsb` byte by byte: without these two words a kernel copies by words, which
    // doubles the throughput of a stream.
    std::vector<std::string> args{
        "qemu-system-x86_64", "-name",
        "arca-" + config.sandbox_id.substr(0, 48) + ",debug-threads=off", "-nodefaults",
        "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot", "-machine",
        "q35,memory-backend=mem,usb=off,vmport=off,smbus=off,sata=off,hpet=on", "-accel",
        kvm ? "kvm" : "tcg,thread=multi", "-cpu", kvm ? "host" : "max,-erms,-fsrm", "-smp",
        std::to_string(config.vcpus), "-m", memory, "-object", memoryObject(memory, fds), "-kernel",
        kernel, "-initrd", config.initrd,
        // The kernel's tests of its own ciphers are a tenth of an emulated boot. On a busy host
        // QEMU may not get to a timer tick in the time that the kernel gives it, which then panics.
        "-append",
        "console=ttyS0 quiet panic=-1 no_timer_check cryptomgr.notests rdinit=/sbin/vminitd" +
            (config.append.empty() ? "" : " " + config.append),
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        // Nothing that QEMU itself needs after start-up.
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"};
    if (config.share) {
        args.insert(args.end(), {"-chardev", "socket,id=fs,fd=4", "-device",
                                 std::string("vhost-user-fs-pci,chardev=fs,queue-size=512,tag=") +
                                     proto::kShareTag});
    }
    if (vsock != nullptr) {
        args.insert(args.end(), {"-device", "vhost-vsock-pci,vhostfd=3,guest-cid=" +
                                                std::to_string(vsock->cid)});
    } else {
        args.insert(args.end(), {"-chardev", "socket,id=vsock,fd=3", "-device",
                                 "vhost-user-vsock-pci,chardev=vsock"});
    }
    if (fds.card >= 0) {
        // No option ROM: nothing boots from it, and loading it takes time.
        args.insert(args.end(),
                    {"-netdev", "tap,id=card,fd=" + std::to_string(fds.card), "-device",
                     std::string("virtio-net-pci,netdev=card,romfile=,mac=") + NetworkCard::kMac});
    }
    int number = 0;
    for (const std::string& disk : config.disks) {
        const bool read_only = disk.rfind("ro:", 0) == 0;
        const std::string id = "disk" + std::to_string(number++);
        std::string path;
        // A comma ends a value of QEMU's options unless it is doubled.
        for (const char c : disk.substr(3)) path.append(c == ',' ? 2 : 1, c);
        args.insert(args.end(), {"-drive",
                                 "if=none,format=raw,id=" + id + ",file=" + path +
                                     (read_only ? ",readonly=on" : ""),
                                 "-device", "virtio-blk-pci,drive=" + id});
    }
    return args;
}

}  // namespace

Machine::Machine(base::EventLoop& loop, Failed failed) : loop_(loop), failed_(std::move(failed)) {}

Machine::~Machine() {
    for (const auto& part : parts_) {
        part->watch.reset();
        if (part->helper.pid == 0) continue;
        (void)base::sendSignal(part->helper.pidfd.get(), SIGKILL);
        (void)base::reapChild(part->helper.pid);
    }
}

Result<std::unique_ptr<Machine>> Machine::start(base::EventLoop& loop, const MonitorConfig& config,
                                                int dir_fd, const std::string& served,
                                                const Devices& devices, Failed failed) {
    std::unique_ptr<Machine> machine(new Machine(loop, std::move(failed)));
    ARCA_CHECK(machine->openConsole(dir_fd));
    ARCA_CHECK(machine->startParts(config, dir_fd, served, devices));
    return machine;
}

Result<> Machine::launch(const char* name, const HelperProgram& program) {
    auto part = std::make_unique<Part>();
    part->name = name;
    ARCA_TRY(part->helper, startHelper(program));
    Part* raw = part.get();
    parts_.push_back(std::move(part));
    ARCA_TRY(raw->watch, base::Watch::make(loop_, raw->helper.pidfd.get(), EPOLLIN,
                                           [this, raw](uint32_t) { ended(*raw); }));
    return {};
}

Result<UniqueFd> Machine::startVsock(const MonitorConfig& config, int dir_fd) {
    ARCA_TRY(base::SocketPair vsock, base::socketPair(SOCK_STREAM));
    ARCA_CHECK(launch("arca-vsock",
                      {config.arca_vsock,
                       {"arca-vsock", "--vhost-user-fd", "3", "--base",
                        std::string("/proc/self/fd/4/") + proto::kMonitorVsockSocket, "--cid", "3"},
                       {vsock.first.get(), dir_fd},
                       console_write_.get(),
                       false}));
    return std::move(vsock.second);
}

Result<UniqueFd> Machine::startFileServer(const MonitorConfig& config, int dir_fd,
                                          const std::string& served) {
    ARCA_TRY(const UniqueFd listener, base::listenUnix(dir_fd, kFsSocket, SOCK_STREAM));
    ARCA_CHECK(launch(
        "virtiofsd", {config.virtiofsd,
                      {"virtiofsd", "--fd=3", "-o", "source=" + served, "-o", "cache=auto", "-o",
                       "xattr", "-o", "no_posix_lock", "--rlimit-nofile=0", "--thread-pool-size=1"},
                      {listener.get()},
                      console_write_.get(),
                      false}));
    ARCA_TRY(UniqueFd fs, base::connectUnix(dir_fd, kFsSocket, SOCK_STREAM));
    (void)::unlinkat(dir_fd, kFsSocket, 0);
    return fs;
}

Result<> Machine::startParts(const MonitorConfig& config, int dir_fd, const std::string& served,
                             const Devices& devices) {
    const int output = console_write_.get();
    UniqueFd vsock;
    if (devices.vsock == nullptr) {
        ARCA_TRY(vsock, startVsock(config, dir_fd));
    }
    UniqueFd fs;
    if (config.share) {
        ARCA_TRY(fs, startFileServer(config, dir_fd, served));
    }
    const UniqueFd memory = hugeMemory(config);
    std::vector<int> fds{devices.vsock != nullptr ? devices.vsock->device.get() : vsock.get()};
    const auto inherit = [&fds](int fd) {
        constexpr int kFirstFd = 3;
        fds.push_back(fd);
        return kFirstFd + static_cast<int>(fds.size()) - 1;
    };
    if (fs.valid()) (void)inherit(fs.get());
    QemuFds numbers;
    if (devices.card != nullptr) numbers.card = inherit(devices.card->device());
    if (memory.valid()) numbers.memory = inherit(memory.get());
    ARCA_CHECK(launch(
        "qemu", {config.qemu, qemuArguments(config, devices.vsock, numbers), fds, output, true}));
    console_write_.reset();
    return {};
}

Result<> Machine::openConsole(int dir_fd) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return failErrno("make a pipe");
    console_.reset(ends[0]);
    console_write_.reset(ends[1]);
    // Its writers are programs that expect to block.
    if (::fcntl(console_write_.get(), F_SETFL, 0) != 0) return failErrno("clear O_NONBLOCK");
    ARCA_TRY(console_log_,
             base::openAt(dir_fd, kConsoleLog, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600));
    ARCA_TRY(console_watch_, base::Watch::make(loop_, console_.get(), EPOLLIN,
                                               [this](uint32_t) { readConsole(); }));
    return {};
}

void Machine::readConsole() {
    std::array<char, 4096> buffer;
    const ssize_t n = ::read(console_.get(), buffer.data(), buffer.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return console_watch_.reset();
    const std::string_view text(buffer.data(), static_cast<size_t>(n));
    console_tail_ += text;
    if (console_tail_.size() > kTailBytes) {
        console_tail_.erase(0, console_tail_.size() - kTailBytes);
    }
    // A guest that never stops writing must not fill the disk: the file begins anew.
    if (console_bytes_ + text.size() > kConsoleLogBytes) {
        console_bytes_ = 0;
        if (::ftruncate(console_log_.get(), 0) != 0) return;
    }
    console_bytes_ += text.size();
    (void)base::writeAll(console_log_.get(), text);
}

std::string Machine::lastWords() const {
    constexpr size_t kLines = 4;
    std::vector<std::string> lines;
    for (const std::string_view line : base::split(console_tail_, '\n')) {
        const std::string_view clean = base::trim(line);
        if (!clean.empty()) lines.push_back(base::printable(clean));
    }
    if (lines.size() > kLines) lines.erase(lines.begin(), lines.end() - kLines);
    return base::join(lines, " | ");
}

void Machine::ended(Part& part) {
    part.watch.reset();
    const auto code = base::reapChild(part.helper.pid);
    part.helper.pid = 0;
    readConsole();  // what it said at its end
    if (stopping_) {
        for (const auto& other : parts_) {
            if (other->helper.pid != 0) return;
        }
        const auto stopped = std::exchange(stopped_, nullptr);
        if (stopped) stopped();
        return;
    }
    constexpr int kSignalled = 128;
    std::string why = std::string(part.name) + " ended";
    if (code && *code > kSignalled) why += " by " + base::signalName(*code - kSignalled);
    if (code && *code <= kSignalled) why += " with exit code " + std::to_string(*code);
    const std::string words = lastWords();
    if (!words.empty()) why += ": " + words;
    // What serves QEMU leaves in order when QEMU is gone, which may be seen first.
    const Part& qemu = *parts_.back();
    if (code && *code == 0 && &part != &qemu && qemu.helper.pid != 0) {
        follows_ = base::Timer(loop_, kCauseLimit, [this, why] { report(why); });
        return;
    }
    report(std::move(why));
}

void Machine::report(std::string why) {
    follows_.reset();
    const auto failed = std::exchange(failed_, nullptr);
    if (failed) loop_.post([failed, why = std::move(why)] { failed(why); });
}

void Machine::stop(std::function<void()> done) {
    stopping_ = true;
    stopped_ = std::move(done);
    bool any = false;
    for (const auto& part : parts_) {
        if (part->helper.pid == 0) continue;
        any = true;
        // What the guest wrote is with the host already; there is nothing to wait for.
        (void)base::sendSignal(part->helper.pidfd.get(), SIGKILL);
    }
    if (any) return;
    loop_.post([this] {
        const auto stopped = std::exchange(stopped_, nullptr);
        if (stopped) stopped();
    });
}

}  // namespace arca::runtime

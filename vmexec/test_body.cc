#include "vmexec/test_body.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <cstdlib>
#include <stdexcept>

#include "base/files.h"
#include "base/process.h"
#include "base/socket.h"

namespace arca::vmexec::testing {

using base::UniqueFd;
using proto::BodyMessage;
using spec::NamespaceType;

namespace {

constexpr std::chrono::seconds kDeadline{60};

template <typename T>
T must(base::Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message());
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::string makeTempDir() {
    std::string path = "/tmp/vmexec-test-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("mkdtemp");
    return path;
}

[[noreturn]] void runVmexec(int sync_fd, int out_fd) {
    const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    (void)::dup2(null.get(), 0);
    (void)::dup2(out_fd, 1);
    (void)::dup2(out_fd, 2);
    const std::string number = std::to_string(sync_fd);
    (void)::fcntl(sync_fd, F_SETFD, 0);
    (void)::execl(VMEXEC_PATH, "vmexec", "--sync-fd", number.c_str(), nullptr);
    ::_exit(126);
}

}  // namespace

Bundle::Bundle() : path_(makeTempDir()) {
    (void)::chmod(path_.c_str(), 0755);
    for (const char* dir : {"", "/bin", "/dev", "/etc", "/proc", "/sys", "/tmp", "/root"})
        must(base::makeDirs(rootfs(dir), 0755));
    (void)::chmod(rootfs("/tmp").c_str(), 01777);
    const UniqueFd from(::open("/bin/busybox", O_RDONLY | O_CLOEXEC));
    const UniqueFd to(::open(rootfs("/bin/busybox").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0755));
    must(base::writeAll(to.get(), must(base::readAll(from.get(), size_t{64} << 20U))));
    for (const char* name :
         {"sh",    "cat",      "echo", "true", "false", "id",       "ls",    "sleep",
          "stat",  "stty",     "tty",  "pwd",  "grep",  "readlink", "touch", "mkdir",
          "mount", "hostname", "env",  "head", "test",  "tr"})
        (void)::symlink("busybox", rootfs(std::string("/bin/") + name).c_str());
}

Bundle::~Bundle() {
    (void)base::removeTree(AT_FDCWD, path_);
}

std::string Bundle::rootfs(const std::string& name) const {
    return path_ + "/rootfs" + name;
}

void Bundle::write(const std::string& name, const std::string& text, mode_t mode) const {
    const UniqueFd fd(::open(rootfs(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    must(base::writeAll(fd.get(), text));
    (void)::fchmod(fd.get(), mode);
}

spec::Plan defaultPlan(const Bundle& bundle, const std::vector<std::string>& args) {
    spec::Plan plan;
    plan.container_id = "test";
    plan.bundle = bundle.path();
    plan.spec.ociVersion = "1.2.0";
    plan.spec.root = spec::Root{"rootfs", false};
    spec::Process process;
    process.args = args;
    process.env = {"PATH=/bin:/usr/bin", "HOME=/root"};
    process.cwd = "/";
    plan.spec.process = process;
    plan.spec.mounts = {
        {"/proc", "proc", "proc", {}, {}, {}},
        {"/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}, {}, {}},
        {"/dev/pts",
         "devpts",
         "devpts",
         {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"},
         {},
         {}},
        {"/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777"}, {}, {}},
        {"/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}, {}, {}},
        {"/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}, {}, {}}};
    plan.spec.has_linux = true;
    for (const NamespaceType type :
         {NamespaceType::kPid, NamespaceType::kNetwork, NamespaceType::kMount, NamespaceType::kIpc,
          NamespaceType::kUts})
        plan.spec.linux.namespaces.push_back({type, ""});
    return plan;
}

spec::Plan execPlan(const spec::Plan& container, pid_t init_pid,
                    const std::vector<std::string>& args) {
    spec::Plan plan = container;
    plan.kind = spec::PlanKind::kExec;
    plan.spec.process->args = args;
    plan.spec.process->terminal = false;
    plan.init_pid = init_pid;
    plan.init_start_time_ticks = must(base::processStartTime(init_pid));
    return plan;
}

Body::Body(const spec::Plan& plan) : dir_(makeTempDir()) {
    auto pair = must(base::socketPair(SOCK_SEQPACKET));
    std::array<int, 2> out{};
    if (::pipe2(out.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    out_ = UniqueFd(out[0]);
    const UniqueFd out_end(out[1]);
    stage1_ = ::fork();
    if (stage1_ == 0) runVmexec(pair.second.get(), out_end.get());
    sync_ = std::move(pair.first);
    const UniqueFd memfd(::memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    must(base::writeAll(memfd.get(), spec::writePlan(plan)));
    const UniqueFd dir(::open(dir_.c_str(), O_PATH | O_CLOEXEC));
    const UniqueFd gate = must(base::listenUnix(dir.get(), "gate.sock", SOCK_SEQPACKET));
    must(base::sendMessage(sync_.get(), proto::encodeBodyMessage(BodyMessage::kPlan),
                           {memfd.get(), gate.get()}));
}

Body::~Body() {
    sync_.reset();
    if (stage1_ > 0) {
        (void)::kill(stage1_, SIGKILL);
        (void)base::reapChild(stage1_);
    }
    if (pid_ > 0 && !reaped_) {
        (void)::kill(pid_, SIGKILL);
        (void)base::reapChild(pid_);
    }
    (void)base::removeTree(AT_FDCWD, dir_);
}

Body::Packet Body::next() {
    while (true) {
        auto message = must(base::receiveMessage(sync_.get(), kDeadline));
        Packet packet;
        packet.eof = !message;
        if (!message) return packet;
        const auto decoded = proto::decodeBodyMessage(message->data);
        if (!decoded) throw std::runtime_error("short packet");
        packet.type = decoded->type;
        packet.value = decoded->value;
        packet.text = decoded->text;
        packet.fds = std::move(message->fds);
        if (packet.type != BodyMessage::kWarning) return packet;
        warnings_.push_back(packet.text);
    }
}

bool Body::pid() {
    const Packet packet = next();
    if (packet.eof || packet.type != BodyMessage::kPid) {
        failure_ = packet.eof ? "end of file" : packet.text;
        return false;
    }
    pid_ = packet.value;
    BOOST_TEST(must(base::reapChild(stage1_)) == 0);
    stage1_ = -1;
    return true;
}

bool Body::ready() {
    if (!pid()) return false;
    send(BodyMessage::kGo);
    while (true) {
        Packet packet = next();
        if (!packet.eof && packet.type == BodyMessage::kMounted) {
            hooks_asked = true;
            send(BodyMessage::kHooksRan);
            continue;
        }
        if (!packet.eof && packet.type == BodyMessage::kReady) {
            if (!packet.fds.empty()) console_ = std::move(packet.fds.front());
            return true;
        }
        failure_ = packet.eof ? "end of file" : packet.text;
        return false;
    }
}

void Body::send(BodyMessage type, int32_t value, const std::string& text) {
    must(base::sendMessage(sync_.get(), proto::encodeBodyMessage(type, value, text)));
}

void Body::commit() {
    send(BodyMessage::kCommit);
    // The init closes its end: from then on it needs no agent.
    if (!next().eof) throw std::runtime_error("the sync socket is still open");
}

bool Body::gateIsOpen() const {
    return base::connectUnixPath(dir_ + "/gate.sock", SOCK_SEQPACKET).has_value();
}

bool Body::start(int32_t value, const std::string& text) {
    const UniqueFd gate = must(base::connectUnixPath(dir_ + "/gate.sock", SOCK_SEQPACKET));
    must(base::sendMessage(gate.get(), proto::encodeBodyMessage(BodyMessage::kStart, value, text)));
    auto message = must(base::receiveMessage(gate.get(), kDeadline));
    if (!message) return true;
    const auto decoded = proto::decodeBodyMessage(message->data);
    failure_ = decoded ? std::string(decoded->text) : "short packet";
    return false;
}

int Body::wait() {
    reaped_ = true;
    const UniqueFd pidfd = must(base::openPidfd(pid_));
    if (!must(base::waitExit(pidfd.get(), kDeadline))) (void)::kill(pid_, SIGKILL);
    return must(base::reapChild(pid_));
}

int Body::run() {
    if (!ready()) return -1;
    commit();
    if (!start()) return -1;
    return wait();
}

std::string Body::output() {
    std::string text;
    std::array<char, 4096> buffer{};
    while (must(base::waitReadable(out_.get(), kDeadline))) {
        const ssize_t n = ::read(out_.get(), buffer.data(), buffer.size());
        if (n <= 0) break;
        text.append(buffer.data(), static_cast<size_t>(n));
    }
    return text;
}

boost::test_tools::assertion_result asRoot(boost::unit_test::test_unit_id /*id*/) {
    boost::test_tools::assertion_result result(::geteuid() == 0);
    result.message() << "needs root: namespaces and mounts";
    return result;
}

std::string outputOf(spec::Plan plan, const std::string& script) {
    plan.spec.process->args = {"sh", "-c", script};
    Body body(plan);
    const int code = body.run();
    BOOST_TEST(code == 0, script << ": " << code << " " << body.failure());
    return code < 0 ? "" : body.output();
}

std::string failureOf(const spec::Plan& plan) {
    Body body(plan);
    BOOST_TEST(!body.ready());
    return body.failure();
}

spec::Plan withUserNamespace(spec::Plan plan) {
    plan.spec.linux.namespaces.push_back({NamespaceType::kUser, ""});
    plan.spec.linux.uidMappings = {{0, 100000, 2000}};
    plan.spec.linux.gidMappings = {{0, 100000, 2000}};
    return plan;
}

bool contains(const std::string& text, const std::string& part) {
    const bool found = text.find(part) != std::string::npos;
    if (!found) BOOST_TEST_MESSAGE("not in it: " << part << "\n" << text);
    return found;
}

}  // namespace arca::vmexec::testing

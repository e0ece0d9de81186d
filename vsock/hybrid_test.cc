#include "vsock/hybrid.h"

#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <filesystem>
#include <string>

#include "vsock/confine.h"
#include "vsock/fake_guest.h"
#include "vsock/server.h"
#include "vsock/test_tools.h"

using namespace arca::vsock;
using namespace arca::vsock::testing;
using arca::base::Code;
using arca::base::UniqueFd;

namespace {

// A folder of its own; the working directory is in it meanwhile, as in the program.
struct Folder {
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "vsock-XXXXXX").string();
        BOOST_TEST_REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        path = pattern;
        before = std::filesystem::current_path();
        std::filesystem::current_path(path);
    }
    ~Folder() {
        std::filesystem::current_path(before);
        std::filesystem::remove_all(path);
    }
    std::string path;
    std::filesystem::path before;
};

const PeerPolicy& ownPolicy() {
    static const PeerPolicy policy({::geteuid()});
    return policy;
}

// BASE with a device behind it whose guest only collects packets.
struct Bench {
    explicit Bench(size_t max_clients = 16)
        : loop(makeLoop()),
          device(*loop, dialer, {FakeGuest::kCid, 16}),
          listener(*loop, device, ownPolicy(), max_clients) {
        auto place = openSocketPlace(folder.path + "/base", ownPolicy());
        BOOST_TEST_REQUIRE(bool(place));
        auto socket = arca::base::listenUnix(place->directory.get(), place->name,
                                             SOCK_STREAM | SOCK_NONBLOCK);
        BOOST_TEST_REQUIRE(bool(socket));
        const bool accepted = bool(listener.start(std::move(*socket)));
        BOOST_TEST_REQUIRE(accepted);
    }
    void startDriver() {
        BOOST_TEST_REQUIRE(bool(device.setMemory(guest.table())));
        size_t index = 0;
        for (const FakeRing* ring : {&guest.to_guest, &guest.from_guest}) {
            BOOST_TEST_REQUIRE(bool(device.queue(index).setSize(ring->size)));
            BOOST_TEST_REQUIRE(bool(device.queue(index).setAddresses(FakeGuest::addresses(*ring))));
            BOOST_TEST_REQUIRE(bool(device.startQueue(index, UniqueFd(::eventfd(0, EFD_CLOEXEC)))));
            device.enableQueue(index++, true);
        }
        guest.postBuffers(4);
    }
    UniqueFd connect() {
        auto fd = arca::base::connectUnixPath(folder.path + "/base", SOCK_STREAM | SOCK_NONBLOCK);
        BOOST_TEST_REQUIRE(bool(fd));
        return std::move(*fd);
    }
    void run() {
        for (int i = 0; i < 5; ++i) {
            BOOST_TEST_REQUIRE(bool(loop->turn(EventLoop::Wait::kNot)));
            (void)device.work();
        }
    }

    Folder folder;
    std::unique_ptr<EventLoop> loop;
    UnixDialer dialer{"base", ownPolicy()};
    FakeGuest guest;
    Device device;
    HybridListener listener;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(hybrid)

BOOST_AUTO_TEST_CASE(a_client_reaches_the_guest) {
    Bench bench;
    bench.startDriver();
    const UniqueFd client = bench.connect();
    BOOST_TEST(writeNow(client, "CONNECT 1024\nearly bytes") == 24U);
    bench.run();
    const std::vector<Packet> packets = bench.guest.receive();
    BOOST_TEST_REQUIRE(packets.size() == 1U);
    BOOST_TEST((packets[0].header.op == Op::kRequest));
    BOOST_TEST(packets[0].header.target_port == 1024U);
    bench.guest.send(FakeGuest::header(Op::kResponse, 1024, packets[0].header.source_port));
    bench.run();
    BOOST_TEST(readNow(client) == "OK " + std::to_string(packets[0].header.source_port) + "\n");
    const std::vector<Packet> data = bench.guest.receive();
    BOOST_TEST_REQUIRE(data.size() == 1U);
    BOOST_TEST(data[0].payload == "early bytes");
}

BOOST_AUTO_TEST_CASE(a_line_may_come_in_pieces) {
    Bench bench;
    bench.startDriver();
    const UniqueFd client = bench.connect();
    for (const char* piece : {"CONN", "ECT 10", "24", "\n"}) {
        BOOST_TEST(bench.guest.receive().empty());
        BOOST_TEST(writeNow(client, piece) > 0U);
        bench.run();
    }
    BOOST_TEST(bench.guest.receive().size() == 1U);
    BOOST_TEST(bench.listener.clientCount() == 0U);
}

BOOST_AUTO_TEST_CASE(who_says_something_else_is_closed) {
    Bench bench;
    bench.startDriver();
    for (const char* line : {"CONNECT\n", "GET / HTTP/1.1\r\n\r\n", "\n", "CONNECT 1\r\n",
                             "CONNECT 11111111111111111111111111111111111111"}) {
        const UniqueFd client = bench.connect();
        BOOST_TEST(writeNow(client, line) > 0U);
        bench.run();
        BOOST_TEST(atEnd(client));
    }
    const UniqueFd client = bench.connect();
    BOOST_TEST(writeNow(client, "CONNECT 1") > 0U);
    bench.run();
    BOOST_TEST(!atEnd(client));
    BOOST_TEST(::shutdown(client.get(), SHUT_WR) == 0);
    bench.run();
    BOOST_TEST(atEnd(client));
    BOOST_TEST(bench.guest.receive().empty());
    BOOST_TEST(bench.listener.clientCount() == 0U);
}

BOOST_AUTO_TEST_CASE(who_says_nothing_is_closed_after_a_while) {
    Bench bench;
    const UniqueFd client = bench.connect();
    bench.run();
    BOOST_TEST(bench.listener.clientCount() == 1U);
    fake_now += HybridListener::kLineTimeout;
    bench.run();
    BOOST_TEST(bench.listener.clientCount() == 0U);
    BOOST_TEST(atEnd(client));
}

BOOST_AUTO_TEST_CASE(too_many_unfinished_clients_are_closed) {
    Bench bench(2);
    const UniqueFd first = bench.connect();
    const UniqueFd second = bench.connect();
    const UniqueFd third = bench.connect();
    bench.run();
    BOOST_TEST(!atEnd(first));
    BOOST_TEST(!atEnd(second));
    BOOST_TEST(atEnd(third));
}

BOOST_AUTO_TEST_CASE(without_a_driver_a_client_is_closed_at_once) {
    Bench bench;
    const UniqueFd client = bench.connect();
    BOOST_TEST(writeNow(client, "CONNECT 1024\n") == 13U);
    bench.run();
    BOOST_TEST(readNow(client).empty());
    BOOST_TEST(atEnd(client));
}

BOOST_AUTO_TEST_CASE(the_guest_reaches_a_socket_beside_base) {
    Bench bench;
    BOOST_TEST(!bench.dialer.dial(5000));
    auto place = openSocketPlace(bench.folder.path + "/base_5000", ownPolicy());
    BOOST_TEST_REQUIRE(bool(place));
    {
        const auto service =
            arca::base::listenUnix(place->directory.get(), place->name, SOCK_STREAM);
        BOOST_TEST_REQUIRE(bool(service));
        const auto dialed = bench.dialer.dial(5000);
        BOOST_TEST(bool(dialed));
        BOOST_TEST(!bench.dialer.dial(500));
    }
    // The file is still there, but nobody listens.
    BOOST_TEST(!bench.dialer.dial(5000));
}

BOOST_AUTO_TEST_CASE(a_service_that_does_not_accept_is_not_waited_for) {
    Bench bench;
    auto place = openSocketPlace(bench.folder.path + "/base_1", ownPolicy());
    const auto service = arca::base::listenUnix(place->directory.get(), place->name, SOCK_STREAM);
    BOOST_TEST_REQUIRE(bool(service));
    BOOST_TEST(::listen(service->get(), 1) == 0);
    std::vector<UniqueFd> dialed;
    for (int i = 0; i < 10; ++i) {
        auto fd = bench.dialer.dial(1);
        if (!fd) {
            BOOST_TEST(fd.error().sysErrno() == EAGAIN);
            return;
        }
        dialed.push_back(std::move(*fd));
    }
    BOOST_FAIL("the backlog never filled");
}

BOOST_AUTO_TEST_CASE(peers_of_other_users_are_refused) {
    const PeerPolicy policy({12345});
    BOOST_TEST(policy.allows(0));
    BOOST_TEST(policy.allows(12345));
    BOOST_TEST(!policy.allows(1));
    auto [ours, theirs] = makePair();
    BOOST_TEST(bool(policy.check(ours.get())) == (::geteuid() == 0));
    BOOST_TEST(bool(ownPolicy().check(ours.get())));
    BOOST_TEST(!policy.check(-1));
}

BOOST_AUTO_TEST_CASE(the_folder_must_be_closed_to_others) {
    const Folder folder;
    const auto made = openSocketPlace(folder.path + "/new/deeper/base", ownPolicy());
    BOOST_TEST_REQUIRE(bool(made));
    BOOST_TEST(made->name == "base");
    struct stat status {};
    BOOST_TEST(::stat((folder.path + "/new/deeper").c_str(), &status) == 0);
    BOOST_TEST((status.st_mode & 0777U) == 0700U);
    for (const mode_t mode : {0750U, 0701U, 0777U}) {
        BOOST_TEST(::chmod((folder.path + "/new").c_str(), mode) == 0);
        const auto refused = openSocketPlace(folder.path + "/new/base", ownPolicy());
        BOOST_TEST_REQUIRE(!refused);
        BOOST_TEST((refused.error().code() == Code::kPermissionDenied));
    }
    for (const std::string& bad : {folder.path + "/", folder.path + "/" + std::string(98, 'n')}) {
        BOOST_TEST(!openSocketPlace(bad, ownPolicy()));
    }
    BOOST_TEST(bool(openSocketPlace(folder.path + "/" + std::string(96, 'n'), ownPolicy())));
    BOOST_TEST(bool(openSocketPlace("base", ownPolicy())));  // the working directory
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(server)

namespace {

// A server that is done when its run() returns.
std::unique_ptr<Server> serverFor(EventLoop& loop, bool keep = false) {
    return std::make_unique<Server>(loop, ServerOptions{{FakeGuest::kCid, 16}, "base", keep},
                                    std::vector<uid_t>{::geteuid()});
}

}  // namespace

BOOST_AUTO_TEST_CASE(ends_with_the_vmms_connection) {
    const auto loop = makeLoop();
    const std::unique_ptr<Server> server = serverFor(*loop);
    auto [ours, vmm] = makePair();
    const bool accepted = bool(server->serveVmm(std::move(ours)));
    BOOST_TEST(accepted);
    vmm.reset();
    BOOST_TEST(bool(server->run()));
}

BOOST_AUTO_TEST_CASE(ends_after_the_first_vmm_that_connects) {
    const Folder folder;
    const auto loop = makeLoop();
    const std::unique_ptr<Server> server = serverFor(*loop);
    auto place = openSocketPlace(folder.path + "/vmm", ownPolicy());
    auto listener =
        arca::base::listenUnix(place->directory.get(), place->name, SOCK_STREAM | SOCK_NONBLOCK);
    BOOST_TEST_REQUIRE(bool(listener));
    const bool accepted = bool(server->listenForVmm(std::move(*listener)));
    BOOST_TEST(accepted);
    auto vmm = arca::base::connectUnixPath(folder.path + "/vmm", SOCK_STREAM);
    BOOST_TEST_REQUIRE(bool(vmm));
    vmm->reset();
    BOOST_TEST(bool(server->run()));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(confinement)

BOOST_AUTO_TEST_CASE(other_system_calls_end_the_process) {
    const Folder folder;
    const auto place = openSocketPlace(folder.path + "/base", ownPolicy());
    BOOST_TEST_REQUIRE(bool(place));
    const auto exit_of = [&](auto&& body) {
        const pid_t child = ::fork();
        if (child == 0) {
            // The bare call: before a function that does not return, the address sanitizer makes
            // system calls of its own.
            const auto leave = [](int code) { (void)::syscall(SYS_exit_group, code); };
            if (!confine({place->directory.get(), {}})) leave(100);
            body();
            leave(0);
        }
        int status = 0;
        BOOST_TEST_REQUIRE(::waitpid(child, &status, 0) == child);
        return status;
    };
    const int good = exit_of([] {
        char c = 0;
        (void)::socket(AF_UNIX, SOCK_STREAM, 0);
        (void)::recv(-1, &c, 1, 0);
    });
    BOOST_TEST_REQUIRE(WIFEXITED(good));
    if (WEXITSTATUS(good) == 100 && ::geteuid() == 0) {
        BOOST_TEST_MESSAGE("skipped: no right to chroot here");
        return;
    }
    BOOST_TEST(WEXITSTATUS(good) == 0);
    const auto killed = [&](auto&& body) {
        const int status = exit_of(body);
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
    };
    BOOST_TEST(killed([] { (void)::open("/", O_RDONLY | O_CLOEXEC); }));
    BOOST_TEST(killed([] { (void)::socket(AF_INET, SOCK_STREAM, 0); }));
    BOOST_TEST(killed([] { (void)::socket(AF_VSOCK, SOCK_STREAM, 0); }));
    BOOST_TEST(killed([] { (void)::fork(); }));
    BOOST_TEST(killed([] { (void)::kill(1, 0); }));
    BOOST_TEST(killed([] { (void)::unlink("base"); }));
    BOOST_TEST(killed([] { (void)::fcntl(0, F_DUPFD, 0); }));
}

BOOST_AUTO_TEST_SUITE_END()

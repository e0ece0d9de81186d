#include "runtime/notify.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <thread>

#include "base/socket.h"
#include "runtime/scratch_dir_test.h"

namespace arca::runtime {
namespace {

using base::UniqueFd;

sockaddr_un addressOf(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

// A service manager's socket, named by NOTIFY_SOCKET; and a container.
struct Fixture {
    ScratchDir scratch;
    UniqueFd host{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    UniqueFd container_fd;
    Fixture() {
        const std::string path = scratch.file("host.sock");
        const sockaddr_un address = addressOf(path);
        BOOST_TEST_REQUIRE(
            ::bind(host.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        (void)::setenv("NOTIFY_SOCKET", path.c_str(), 1);
        BOOST_TEST_REQUIRE(::mkdir(scratch.file("c1").c_str(), 0700) == 0);
    }
    Fixture(const Fixture&) = delete;
    Fixture& operator=(const Fixture&) = delete;
    ~Fixture() { (void)::unsetenv("NOTIFY_SOCKET"); }

    ContainerDir dir() const {
        return {"c1", -1, UniqueFd(::open(scratch.file("c1").c_str(), O_RDONLY | O_CLOEXEC))};
    }
    // What the program in the container does.
    void say(const std::string& text) const {
        const UniqueFd client(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        const sockaddr_un address = addressOf(scratch.file("c1/notify/notify.sock"));
        BOOST_TEST(::sendto(client.get(), text.data(), text.size(), 0,
                            reinterpret_cast<const sockaddr*>(&address),
                            sizeof address) == static_cast<ssize_t>(text.size()));
    }
    std::string heard() const {
        auto message = base::receiveMessage(host.get(), std::chrono::seconds(5));
        return message && *message ? (*message)->data : "<nothing>";
    }
};

spec::Spec someSpec() {
    spec::Spec spec;
    spec.process.emplace();
    return spec;
}

BOOST_FIXTURE_TEST_SUITE(notify, Fixture)

BOOST_AUTO_TEST_CASE(the_line_is_found_among_others) {
    BOOST_TEST(readyLine("STATUS=a\nREADY=1\nX=2") == "READY=1");
    BOOST_TEST(readyLine("READY=1") == "READY=1");
    BOOST_TEST(readyLine("NOTREADY=1\nSTATUS=READY=1").empty());
    BOOST_TEST(readyLine("").empty());
}

BOOST_AUTO_TEST_CASE(nothing_is_done_without_the_variable) {
    (void)::unsetenv("NOTIFY_SOCKET");
    spec::Spec spec = someSpec();
    BOOST_TEST(addNotifySocket(dir(), spec).has_value());
    BOOST_TEST(spec.mounts.empty());
    BOOST_TEST(NotifyProxy::open(dir())->fd() == -1);
}

BOOST_AUTO_TEST_CASE(nothing_is_done_for_a_container_created_without_it) {
    BOOST_TEST(NotifyProxy::open(dir())->fd() == -1);
}

BOOST_AUTO_TEST_CASE(ready_is_passed_on_once) {
    spec::Spec spec = someSpec();
    BOOST_TEST(addNotifySocket(dir(), spec).has_value());
    BOOST_TEST(spec.mounts.at(0).destination == "/run/notify");
    BOOST_TEST(spec.mounts.at(0).source == scratch.file("c1/notify"));
    BOOST_TEST(spec.process->env.at(0) == "NOTIFY_SOCKET=/run/notify/notify.sock");
    auto proxy = NotifyProxy::open(dir());
    BOOST_TEST_REQUIRE(proxy.has_value());
    say("STATUS=loading");
    BOOST_TEST(proxy->receive(0).has_value());
    BOOST_TEST(proxy->fd() >= 0);
    say("STATUS=done\nREADY=1\n");
    BOOST_TEST(proxy->receive(0).has_value());
    BOOST_TEST(heard() == "READY=1\n");
    BOOST_TEST(proxy->fd() == -1);
}

BOOST_AUTO_TEST_CASE(who_waits_names_the_main_process_and_is_heard_out) {
    spec::Spec spec = someSpec();
    BOOST_TEST(addNotifySocket(dir(), spec).has_value());
    auto proxy = NotifyProxy::open(dir());
    say("READY=1");
    const auto start = base::processStartTime(::getpid());
    bool waited = false;
    std::thread waiter([&] { waited = proxy->waitReady({::getpid(), *start}).has_value(); });
    BOOST_TEST(heard() == "READY=1\n");
    BOOST_TEST(heard() == "MAINPID=" + std::to_string(::getpid()) + "\n");
    {
        auto barrier = base::receiveMessage(host.get(), std::chrono::seconds(5));
        BOOST_TEST_REQUIRE((barrier && *barrier));
        BOOST_TEST((*barrier)->data == "BARRIER=1");
        BOOST_TEST((*barrier)->fds.size() == 1U);
    }
    waiter.join();
    BOOST_TEST(waited);
}

BOOST_AUTO_TEST_CASE(the_end_of_the_init_ends_the_wait) {
    spec::Spec spec = someSpec();
    BOOST_TEST(addNotifySocket(dir(), spec).has_value());
    auto proxy = NotifyProxy::open(dir());
    BOOST_TEST(proxy->waitReady({::getpid(), 1}).has_value());  // never was
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime

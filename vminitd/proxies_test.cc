// Worker threads, and the proxies that use them.
#include "vminitd/proxies.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <future>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/socket.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

using base::Code;
using base::Result;
using base::UniqueFd;
using namespace std::chrono_literals;

// A door that tasks wait at.
struct Gate {
    std::promise<void> promise;
    std::shared_future<void> future{promise.get_future()};
    void open() { promise.set_value(); }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(workers)

BOOST_AUTO_TEST_CASE(as_many_at_once_as_there_may_be_threads) {
    Gate gate;
    std::atomic<int> running{0};
    std::promise<void> both;
    Workers pool(2, 10);
    for (int i = 0; i < 5; ++i) {
        BOOST_TEST(pool.post([&] {
            if (++running == 2) both.set_value();
            gate.future.wait();
        }));
    }
    BOOST_TEST((both.get_future().wait_for(10s) == std::future_status::ready));
    BOOST_TEST(running == 2);
    gate.open();
    pool.stop();
    BOOST_TEST(!pool.post([] {}));
}

BOOST_AUTO_TEST_CASE(too_much_is_refused_and_what_was_taken_is_done) {
    std::atomic<int> done{0};
    {
        Gate gate;
        std::promise<void> started;
        Workers pool(1, 2);
        BOOST_TEST(pool.post([&] {
            started.set_value();
            gate.future.wait();
            ++done;
        }));
        started.get_future().wait();
        BOOST_TEST(pool.post([&] { ++done; }));
        BOOST_TEST(pool.post([&] { ++done; }));
        BOOST_TEST(!pool.post([&] { ++done; }));
        gate.open();
    }
    BOOST_TEST(done == 3);
}

BOOST_AUTO_TEST_CASE(a_pause_ends_with_the_pool) {
    std::promise<bool> went_on;
    std::promise<void> started;
    Workers pool(1, 1);
    BOOST_TEST(pool.post([&] {
        started.set_value();
        went_on.set_value(pool.pause(1h));
    }));
    started.get_future().wait();
    pool.stop();
    BOOST_TEST(!went_on.get_future().get());
}

BOOST_AUTO_TEST_CASE(a_task_that_throws_takes_nothing_with_it) {
    std::promise<void> done;
    Workers pool(1, 2);
    BOOST_TEST(pool.post([] { throw std::runtime_error("on purpose"); }));
    BOOST_TEST(pool.post([&] { done.set_value(); }));
    BOOST_TEST((done.get_future().wait_for(10s) == std::future_status::ready));
}

BOOST_AUTO_TEST_SUITE_END()

namespace {

struct ProxyFixture {
    ProxyFixture() : loop(std::move(*base::EventLoop::make())) {
        (void)::signal(SIGPIPE, SIG_IGN);  // of the tests' own writes
        transport = std::move(*base::openTransport("unix://" + host.path()));
        proxies = std::make_shared<Proxies>(*loop, *transport, pool);
        thread = std::thread([this] { loop->run(); });
    }
    ~ProxyFixture() {
        pool.stop();
        loop->post([this] {
            proxies->closeAll();
            loop->stop();
        });
        thread.join();
    }
    GuestPath path(const std::string& name) const {
        return GuestPath::parse(guest.path() + "/" + name, "/run/container").value();
    }
    Result<> ask(const std::function<void(Proxies::Done)>& what) {
        std::promise<Result<>> answer;
        loop->post([&] { what([&](Result<> result) { answer.set_value(std::move(result)); }); });
        return answer.get_future().get();
    }
    Result<> start(const ProxyRequest& request) {
        return ask([&](Proxies::Done done) { proxies->start(request, std::move(done)); });
    }
    Result<> stop(const std::string& id) {
        return ask([&](Proxies::Done done) { proxies->stop(id, std::move(done)); });
    }
    ProxyRequest into(const std::string& id, const std::string& name, uint32_t port) const {
        return {.id = id, .port = port, .path = path(name), .permissions = 0640};
    }
    ProxyRequest outOf(const std::string& id, const std::string& name, uint32_t port) const {
        return {.id = id,
                .direction = ProxyRequest::Direction::kOutOf,
                .port = port,
                .path = path(name),
                .permissions = {}};
    }
    UniqueFd connectGuest(const std::string& name) const {
        auto fd = base::connectUnix(guest.fd(), name, SOCK_STREAM);
        BOOST_TEST_REQUIRE(fd.has_value(), why(fd));
        return std::move(*fd);
    }
    bool there(const std::string& name) const {
        struct stat st {};
        return ::fstatat(guest.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
    }

    TestFolder host, guest;
    std::unique_ptr<base::EventLoop> loop;
    std::unique_ptr<base::Transport> transport;
    Workers pool{4, 64};
    std::shared_ptr<Proxies> proxies;
    std::thread thread;
};

// Sends and half-closes, then reads the answer to its end.
std::string converse(const UniqueFd& fd, const std::string& text) {
    std::thread writer([&] {
        (void)base::writeAll(fd.get(), text);
        (void)::shutdown(fd.get(), SHUT_WR);
    });
    auto answer = base::readAll(fd.get(), size_t{64} << 20U);
    writer.join();
    return answer ? *answer : answer.error().message();
}

// Reads to the end, then answers with a prefix and closes: works only with half-closing.
void serveOne(int listener_fd, const std::string& prefix) {
    const UniqueFd peer(::accept4(listener_fd, nullptr, nullptr, SOCK_CLOEXEC));
    const auto text = base::readAll(peer.get(), size_t{64} << 20U);
    (void)base::writeAll(peer.get(), prefix + text.value_or("?"));
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(proxies_suite, ProxyFixture)

BOOST_AUTO_TEST_CASE(a_socket_of_the_host_appears_in_the_guest) {
    const auto listener = transport->listen(5000);
    BOOST_TEST_REQUIRE(listener.has_value());
    BOOST_TEST_REQUIRE(start(into("p", "run/deep/s.sock", 5000)).has_value());
    struct stat st {};
    BOOST_TEST_REQUIRE(::fstatat(guest.fd(), "run/deep/s.sock", &st, 0) == 0);
    BOOST_TEST((st.st_mode & 07777U) == 0640U);
    const std::string text(2'000'000, 'x');
    for (int i = 0; i < 3; ++i) {
        std::thread server([&] { serveOne((*listener)->fd(), "host:"); });
        BOOST_TEST(converse(connectGuest("run/deep/s.sock"), text) == "host:" + text);
        server.join();
    }
    BOOST_TEST(stop("p").has_value());
    BOOST_TEST(!there("run/deep/s.sock"));
    BOOST_TEST((stop("p").error().code() == Code::kNotFound));
}

BOOST_AUTO_TEST_CASE(a_socket_of_the_guest_is_reached_from_the_host) {
    const auto listener = base::listenUnix(guest.fd(), "app.sock", SOCK_STREAM);
    BOOST_TEST_REQUIRE(listener.has_value());
    BOOST_TEST_REQUIRE(start(outOf("p", "app.sock", 6000)).has_value());
    std::thread server([&] { serveOne(listener->get(), "app:"); });
    auto fd = transport->dial(6000, 5s);
    BOOST_TEST_REQUIRE(fd.has_value());
    BOOST_TEST(converse(*fd, "hello") == "app:hello");
    server.join();
    BOOST_TEST(stop("p").has_value());
    BOOST_TEST(!transport->dial(6000, 1s).has_value());
    BOOST_TEST(there("app.sock"));  // not ours
}

BOOST_AUTO_TEST_CASE(a_second_one_of_the_same_name_touches_nothing) {
    const auto listener = transport->listen(5000);
    BOOST_TEST_REQUIRE(start(into("p", "s.sock", 5000)).has_value());
    const auto again = start(into("p", "s.sock", 5001));
    BOOST_TEST_REQUIRE(!again.has_value());
    BOOST_TEST((again.error().code() == Code::kAlreadyExists));
    std::thread server([&] { serveOne((*listener)->fd(), "host:"); });
    BOOST_TEST(converse(connectGuest("s.sock"), "a") == "host:a");
    server.join();
}

BOOST_AUTO_TEST_CASE(what_is_there_is_not_removed_unless_it_is_a_socket) {
    guest.write("file", "mine");
    BOOST_TEST(!start(into("p", "file", 5000)).has_value());
    BOOST_TEST(*base::readFile(guest.path() + "/file") == "mine");
    { const auto stale = base::listenUnix(guest.fd(), "stale", SOCK_STREAM); }
    BOOST_TEST(there("stale"));
    // The failed one left nothing of its name behind.
    BOOST_TEST(start(into("p", "stale", 5000)).has_value());
}

BOOST_AUTO_TEST_CASE(connections_outlive_their_proxy) {
    const auto listener = transport->listen(5000);
    BOOST_TEST_REQUIRE(start(into("p", "s.sock", 5000)).has_value());
    const UniqueFd client = connectGuest("s.sock");
    const auto server = (*listener)->accept();
    BOOST_TEST_REQUIRE(server.has_value());
    BOOST_TEST(stop("p").has_value());
    BOOST_TEST(!there("s.sock"));
    BOOST_TEST(base::writeAll(client.get(), "after").has_value());
    std::string got(5, '\0');
    BOOST_TEST(::recv(server->get(), got.data(), got.size(), MSG_WAITALL) == 5);
    BOOST_TEST(got == "after");
}

BOOST_AUTO_TEST_CASE(nobody_at_the_other_end_closes_the_connection) {
    BOOST_TEST_REQUIRE(start(into("p", "s.sock", 5999)).has_value());
    const UniqueFd client = connectGuest("s.sock");
    char byte = 0;
    BOOST_TEST(::recv(client.get(), &byte, 1, 0) == 0);
    // And the proxy goes on.
    const auto listener = transport->listen(5999);
    std::thread server([&] { serveOne((*listener)->fd(), "host:"); });
    BOOST_TEST(converse(connectGuest("s.sock"), "b") == "host:b");
    server.join();
}

BOOST_AUTO_TEST_CASE(a_peer_that_is_gone_ends_the_connection) {
    const auto listener = transport->listen(5000);
    BOOST_TEST_REQUIRE(start(into("p", "s.sock", 5000)).has_value());
    UniqueFd client = connectGuest("s.sock");
    const auto server = (*listener)->accept();
    (void)base::writeAll(client.get(), "last words");
    client.reset();
    // Everything that was said arrives, then the end; and writing fails for good, not only for now.
    BOOST_TEST(base::readAll(server->get(), 1000).value() == "last words");
    char byte = 'x';
    while (::send(server->get(), &byte, 1, MSG_NOSIGNAL) == 1) std::this_thread::yield();
    BOOST_TEST(errno == EPIPE);
}

BOOST_AUTO_TEST_CASE(a_reader_that_stops_holds_up_nobody_else) {
    const auto listener = transport->listen(5000);
    BOOST_TEST_REQUIRE(start(into("p", "s.sock", 5000)).has_value());
    const UniqueFd stalled = connectGuest("s.sock");
    const auto silent = (*listener)->accept();
    // Fills everything in between.
    const std::string block(65536, 'x');
    while (::send(stalled.get(), block.data(), block.size(), MSG_DONTWAIT) > 0) {
        std::this_thread::sleep_for(1ms);
    }
    std::thread server([&] { serveOne((*listener)->fd(), "host:"); });
    const std::string text(3'000'000, 'y');
    BOOST_TEST((converse(connectGuest("s.sock"), text) == "host:" + text));
    server.join();
}

BOOST_AUTO_TEST_CASE(many_at_once) {
    const auto listener = transport->listen(5000);
    BOOST_TEST_REQUIRE(start(into("p", "s.sock", 5000)).has_value());
    constexpr int kMany = 50;
    std::vector<std::thread> servers;
    std::vector<UniqueFd> clients;
    for (int i = 0; i < kMany; ++i) {
        clients.push_back(connectGuest("s.sock"));
        servers.emplace_back([&] { serveOne((*listener)->fd(), "host:"); });
    }
    for (int i = 0; i < kMany; ++i) {
        const std::string text = std::to_string(i);
        BOOST_TEST(converse(clients[static_cast<size_t>(i)], text) == "host:" + text);
    }
    for (std::thread& server : servers) server.join();
}

BOOST_AUTO_TEST_CASE(there_may_be_so_many) {
    for (size_t i = 0; i < Proxies::kMaxProxies; ++i) {
        const std::string name = std::to_string(i);
        BOOST_TEST_REQUIRE(start(into(name, "s" + name, 5000)).has_value());
    }
    BOOST_TEST((start(into("more", "more", 5000)).error().code() == Code::kFailedPrecondition));
    BOOST_TEST(stop("0").has_value());
    BOOST_TEST(start(into("more", "more", 5000)).has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd

#include "base/transport.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <thread>

#include "base/files.h"
#include "base/socket.h"

namespace {

using namespace arca::base;
using namespace std::chrono_literals;

struct Folder {
    Folder() {
        char name[] = "/tmp/arca-transport-XXXXXX";
        path = ::mkdtemp(name);
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
};

std::string readLine(int fd) {
    std::string line;
    char byte = 0;
    while (::recv(fd, &byte, 1, 0) == 1 && byte != '\n') line += byte;
    return line;
}

BOOST_AUTO_TEST_SUITE(transport)

BOOST_AUTO_TEST_CASE(addresses_of_the_three_kinds_are_understood) {
    for (const char* address : {"vsock://3", "hvsock:///run/x/vsock.sock", "unix:///run/x"}) {
        const auto opened = openTransport(address);
        BOOST_TEST_REQUIRE(opened.has_value(), address);
        BOOST_TEST((*opened)->address() == address);
    }
    BOOST_TEST((*openTransport("vsock://3:1024"))->address() == "vsock://3");
}

BOOST_AUTO_TEST_CASE(a_malformed_address_is_refused_and_named) {
    for (const char* address : {"", "3", "tcp://1", "vsock://", "vsock://x", "vsock://3:99",
                                "vsock://3:1024:1", "unix://", "unix://rel", "hvsock://rel/a"}) {
        const auto opened = openTransport(address);
        BOOST_TEST_REQUIRE(!opened.has_value(), address);
        BOOST_TEST((opened.error().code() == Code::kInvalidArgument));
        BOOST_TEST(opened.error().message().find(address) != std::string::npos);
    }
}

BOOST_AUTO_TEST_CASE(a_folder_connects_dialler_and_listener_by_port) {
    const Folder folder;
    const auto transport = openTransport("unix://" + folder.path);
    auto listener = (*transport)->listen(77);
    BOOST_TEST_REQUIRE(listener.has_value());
    auto dialled = (*transport)->dial(77, 1s);
    BOOST_TEST_REQUIRE(dialled.has_value());
    auto accepted = (*listener)->accept();
    BOOST_TEST_REQUIRE(accepted.has_value());
    BOOST_TEST(sendMessage(dialled->get(), "hello\n").has_value());
    BOOST_TEST(readLine(accepted->get()) == "hello");
}

BOOST_AUTO_TEST_CASE(a_dial_can_be_begun_without_waiting) {
    const Folder folder;
    const auto transport = openTransport("unix://" + folder.path);
    auto listener = (*transport)->listen(77);
    auto begun = (*transport)->beginDial(77);
    BOOST_TEST_REQUIRE(begun.has_value());
    BOOST_TEST((::fcntl(begun->get(), F_GETFL) & O_NONBLOCK) != 0);
    BOOST_TEST(finishDial(begun->get()).has_value());
    BOOST_TEST((*listener)->accept().has_value());
    const auto refused = (*transport)->beginDial(78);
    BOOST_TEST_REQUIRE(!refused.has_value());
    BOOST_TEST((refused.error().code() == Code::kUnavailable));
    const auto hybrid = openTransport("hvsock://" + folder.path + "/x");
    const auto unsupported = (*hybrid)->beginDial(77);
    BOOST_TEST_REQUIRE(!unsupported.has_value());
    BOOST_TEST((unsupported.error().code() == Code::kUnsupported));
}

BOOST_AUTO_TEST_CASE(a_listener_takes_its_socket_file_with_it) {
    const Folder folder;
    const auto transport = openTransport("unix://" + folder.path);
    {
        auto listener = (*transport)->listen(77);
        BOOST_TEST(std::filesystem::exists(folder.path + "/77"));
    }
    BOOST_TEST(!std::filesystem::exists(folder.path + "/77"));
    const auto dialled = (*transport)->dial(77, 1s);
    BOOST_TEST_REQUIRE(!dialled.has_value());
    BOOST_TEST((dialled.error().code() == Code::kUnavailable));
}

BOOST_AUTO_TEST_CASE(a_port_of_a_folder_has_one_listener) {
    const Folder folder;
    const auto transport = openTransport("unix://" + folder.path);
    {
        auto listener = (*transport)->listen(77);
        const auto second = (*transport)->listen(77);
        BOOST_TEST_REQUIRE(!second.has_value());
        BOOST_TEST(second.error().sysErrno() == EADDRINUSE);
        BOOST_TEST((*transport)->dial(77, 1s).has_value());
    }
    // What a killed listener leaves is replaced.
    const auto dir = openAt(AT_FDCWD, folder.path, O_PATH | O_DIRECTORY);
    BOOST_TEST(listenUnix(dir->get(), "77", SOCK_STREAM).has_value());
    BOOST_TEST((*transport)->listen(77).has_value());
}

BOOST_AUTO_TEST_CASE(paths_longer_than_sun_path_work) {
    const Folder folder;
    const std::string deep = folder.path + "/" + std::string(120, 'd');
    std::filesystem::create_directory(deep);
    const auto transport = openTransport("unix://" + deep);
    auto listener = (*transport)->listen(1);
    BOOST_TEST_REQUIRE(listener.has_value());
    BOOST_TEST((*transport)->dial(1, 1s).has_value());
}

// Plays the VMM's side of one hybrid connection with a fixed answer.
struct Vmm {
    Vmm(const std::string& path, std::string answer)
        : dir(*openAt(AT_FDCWD, std::filesystem::path(path).parent_path(), O_PATH | O_DIRECTORY)),
          listener(*listenUnix(dir.get(), std::filesystem::path(path).filename(), SOCK_STREAM)),
          thread([this, answer = std::move(answer)] {
              peer.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
              request = readLine(peer.get());
              (void)writeAll(peer.get(), answer);
              if (answer.empty()) peer.reset();
          }) {}
    ~Vmm() { thread.join(); }
    UniqueFd dir;
    UniqueFd listener;
    UniqueFd peer;
    std::string request;
    std::thread thread;
};

BOOST_AUTO_TEST_CASE(the_hybrid_handshake_leaves_the_streams_first_bytes_alone) {
    const Folder folder;
    const std::string path = folder.path + "/vsock.sock";
    Vmm vmm(path, "OK 1073741824\nfirst\n");
    auto dialled = (*openTransport("hvsock://" + path))->dial(1024, 2s);
    BOOST_TEST_REQUIRE(dialled.has_value());
    BOOST_TEST(readLine(dialled->get()) == "first");
    BOOST_TEST(vmm.request == "CONNECT 1024");
}

BOOST_AUTO_TEST_CASE(a_hybrid_peer_that_refuses_or_lies_is_unavailable) {
    for (const char* answer : {"", "NO\n", "OK x\n", "OK 1 and so on and so on and so on and on"}) {
        const Folder folder;
        const std::string path = folder.path + "/vsock.sock";
        const Vmm vmm(path, answer);
        const auto dialled = (*openTransport("hvsock://" + path))->dial(1024, 2s);
        BOOST_TEST_REQUIRE(!dialled.has_value(), answer);
        BOOST_TEST((dialled.error().code() == Code::kUnavailable));
    }
}

BOOST_AUTO_TEST_CASE(a_hybrid_peer_that_says_nothing_times_out) {
    const Folder folder;
    const std::string path = folder.path + "/vsock.sock";
    const auto dir = openAt(AT_FDCWD, folder.path, O_PATH | O_DIRECTORY);
    const auto listener = listenUnix(dir->get(), "vsock.sock", SOCK_STREAM);
    const auto dialled = (*openTransport("hvsock://" + path))->dial(1024, 50ms);
    BOOST_TEST_REQUIRE(!dialled.has_value());
    BOOST_TEST((dialled.error().code() == Code::kDeadlineExceeded));
}

BOOST_AUTO_TEST_CASE(guest_to_host_ports_of_a_hybrid_base_are_files_beside_it) {
    const Folder folder;
    const auto transport = openTransport("hvsock://" + folder.path + "/vsock.sock");
    auto listener = (*transport)->listen(kFirstStdioPort);
    BOOST_TEST_REQUIRE(listener.has_value());
    BOOST_TEST(std::filesystem::exists(folder.path + "/vsock.sock_268435456"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

#include "base/socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/temp_dir.h"

namespace arca::base {
namespace {

using std::chrono::milliseconds;

BOOST_AUTO_TEST_SUITE(socket)

BOOST_AUTO_TEST_CASE(a_message_arrives_whole_with_its_descriptors) {
    const auto pair = socketPair(SOCK_SEQPACKET);
    BOOST_TEST_REQUIRE(pair.has_value());
    const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const std::string data(kMaxMessageBytes, 'x');
    BOOST_TEST(sendMessage(pair->first.get(), data, {file.get(), file.get()}).has_value());
    BOOST_TEST(sendMessage(pair->first.get(), "second").has_value());
    auto first = receiveMessage(pair->second.get(), milliseconds(10000));
    BOOST_TEST_REQUIRE((first.has_value() && first->has_value()));
    BOOST_TEST(((*first)->data == data));
    BOOST_TEST_REQUIRE((*first)->fds.size() == 2U);
    BOOST_TEST((static_cast<unsigned>(::fcntl((*first)->fds[0].get(), F_GETFD)) &
                static_cast<unsigned>(FD_CLOEXEC)) != 0U);
    const auto second = receiveMessage(pair->second.get());
    BOOST_TEST_REQUIRE((second.has_value() && second->has_value()));
    BOOST_TEST((*second)->data == "second");
    BOOST_TEST((*second)->fds.empty());
}

BOOST_AUTO_TEST_CASE(what_is_too_large_for_one_message_is_refused) {
    const auto pair = socketPair(SOCK_SEQPACKET);
    BOOST_TEST_REQUIRE(pair.has_value());
    const std::string data(kMaxMessageBytes + 1, 'x');
    BOOST_TEST(!sendMessage(pair->first.get(), data).has_value());
    BOOST_TEST(
        !sendMessage(pair->first.get(), "x", std::vector<int>(kMaxMessageFds + 1, 0)).has_value());
}

BOOST_AUTO_TEST_CASE(a_closed_peer_is_no_message_and_no_signal) {
    auto pair = socketPair(SOCK_SEQPACKET);
    BOOST_TEST_REQUIRE(pair.has_value());
    pair->first.reset();
    const auto message = receiveMessage(pair->second.get(), milliseconds(10000));
    BOOST_TEST_REQUIRE(message.has_value());
    BOOST_TEST(!message->has_value());
    const auto sent = sendMessage(pair->second.get(), "x");
    BOOST_TEST_REQUIRE(!sent.has_value());
    BOOST_TEST((sent.error().code() == Code::kUnavailable));
}

BOOST_AUTO_TEST_CASE(waiting_ends_at_the_timeout) {
    const auto pair = socketPair(SOCK_SEQPACKET);
    BOOST_TEST_REQUIRE(pair.has_value());
    const auto message = receiveMessage(pair->second.get(), milliseconds(1));
    BOOST_TEST_REQUIRE(!message.has_value());
    BOOST_TEST((message.error().code() == Code::kDeadlineExceeded));
    BOOST_TEST(!waitReadable(pair->second.get(), milliseconds(0)).value());
    BOOST_TEST(sendMessage(pair->first.get(), "x").has_value());
    BOOST_TEST(waitReadable(pair->second.get(), milliseconds(0)).value());
}

BOOST_AUTO_TEST_CASE(a_cut_message_is_an_error_and_its_descriptors_are_closed) {
    const auto pair = socketPair(SOCK_SEQPACKET);
    BOOST_TEST_REQUIRE(pair.has_value());
    const int big = 1 << 20;
    BOOST_TEST(::setsockopt(pair->first.get(), SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big) +
                   ::setsockopt(pair->first.get(), SOL_SOCKET, SO_SNDBUF, &big, sizeof big) >=
               -1);
    const std::string data(kMaxMessageBytes + 1000, 'x');
    const size_t before = openFdCount();
    if (::send(pair->first.get(), data.data(), data.size(), MSG_NOSIGNAL) < 0) {
        BOOST_TEST_MESSAGE("skipped: the kernel takes no message of this size");
        return;
    }
    const auto message = receiveMessage(pair->second.get(), milliseconds(10000));
    BOOST_TEST_REQUIRE(!message.has_value());
    BOOST_TEST((message.error().code() == Code::kInternal));
    BOOST_TEST(openFdCount() == before);
}

BOOST_AUTO_TEST_CASE(socket_files_work_however_deep_they_lie) {
    const TempDir dir;
    std::string deep = dir.path();
    for (int i = 0; i < 5; ++i) deep += "/" + std::string(60, 'd');
    BOOST_TEST_REQUIRE(makeDirs(deep, 0700).has_value());
    const auto deep_fd = openAt(AT_FDCWD, deep, O_PATH | O_DIRECTORY);
    BOOST_TEST_REQUIRE(deep_fd.has_value());
    const auto listener = listenUnix(deep_fd->get(), "s", SOCK_STREAM);
    BOOST_TEST_REQUIRE(listener.has_value());
    struct stat st {};
    BOOST_TEST(::fstatat(deep_fd->get(), "s", &st, 0) == 0);
    BOOST_TEST((st.st_mode & 0777U) == 0600U);
    const auto by_dir = connectUnix(deep_fd->get(), "s", SOCK_STREAM);
    BOOST_TEST_REQUIRE(by_dir.has_value());
    BOOST_TEST(connectUnixPath(deep + "/s", SOCK_STREAM).has_value());
    const auto credentials = peerCredentials(by_dir->get());
    BOOST_TEST_REQUIRE(credentials.has_value());
    BOOST_TEST(credentials->pid == ::getpid());
    BOOST_TEST(credentials->uid == ::geteuid());
    // A stale file is replaced.
    BOOST_TEST(listenUnix(deep_fd->get(), "s", SOCK_STREAM).has_value());
}

BOOST_AUTO_TEST_CASE(nobody_listening_is_unavailable) {
    const TempDir dir;
    const auto missing = connectUnixPath(dir.path() + "/s", SOCK_STREAM);
    BOOST_TEST_REQUIRE(!missing.has_value());
    BOOST_TEST((missing.error().code() == Code::kUnavailable));
    BOOST_TEST(missing.error().message() ==
               "connect to " + dir.path() + "/s: no such file or directory");
    { (void)listenUnix(dir.fd(), "s", SOCK_STREAM); }
    const auto refused = connectUnix(dir.fd(), "s", SOCK_STREAM);
    BOOST_TEST_REQUIRE(!refused.has_value());
    BOOST_TEST((refused.error().code() == Code::kUnavailable));
    BOOST_TEST(refused.error().sysErrno() == ECONNREFUSED);
    const auto long_name = connectUnix(dir.fd(), std::string(200, 's'), SOCK_STREAM);
    BOOST_TEST_REQUIRE(!long_name.has_value());
    BOOST_TEST((long_name.error().code() == Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(no_descriptor_is_left) {
    const size_t before = openFdCount();
    {
        const TempDir dir;
        const auto listener = listenUnix(dir.fd(), "s", SOCK_SEQPACKET);
        (void)connectUnix(dir.fd(), "s", SOCK_SEQPACKET);
        (void)connectUnix(dir.fd(), "s", SOCK_STREAM);
        (void)connectUnix(dir.fd(), "none", SOCK_STREAM);
        auto pair = socketPair(SOCK_SEQPACKET);
        (void)sendMessage(pair->first.get(), "x", {pair->first.get()});
        (void)receiveMessage(pair->second.get());
    }
    BOOST_TEST(openFdCount() == before);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base

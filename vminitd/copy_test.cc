// Copies; archive/ has the tests of what is in them.
#include "vminitd/copy.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <thread>

#include "archive/test_archive.h"
#include "base/data_channel.h"
#include "base/files.h"
#include "base/socket.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

using archive::archiveOf;
using base::Code;
using base::DataChannel;
using base::Result;
using base::StopSignal;
using base::UniqueFd;

mode_t modeOf(const TestFolder& folder, const std::string& name) {
    struct stat st {};
    return ::fstatat(folder.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_mode : 0;
}

std::string contentOf(const TestFolder& folder, const std::string& name) {
    return base::readFile(name, size_t{64} << 20U, folder.fd()).value_or("(none)");
}

// A copy with the test at the other end of its channel.
struct CopyFixture {
    CopyFixture() {
        (void)::signal(SIGPIPE, SIG_IGN);  // of the tests' own writes
        auto pair = base::socketPair(SOCK_STREAM);
        host = std::move(pair->first);
        guest = std::move(pair->second);
    }
    GuestPath path(const std::string& name) const {
        return GuestPath::parse(folder.path() + "/" + name, "/run/container").value();
    }
    // Writes what the host would, from a thread of its own, and closes.
    std::thread sender(std::string bytes) {
        return std::thread([this, bytes = std::move(bytes)] {
            (void)base::writeAll(host.get(), bytes);
            host.reset();
        });
    }
    Result<> in(const std::string& bytes, const CopyInRequest& request) {
        ARCA_CHECK(prepareCopyIn(request));
        std::thread thread = sender(bytes);
        DataChannel channel(std::move(guest), stop);
        auto done = copyIn(request, channel);
        thread.join();
        return done;
    }
    Result<std::string> out(const std::string& name) {
        ARCA_TRY(const CopySource source, openCopySource(path(name)));
        std::string got;
        std::thread thread([&] { got = base::readAll(host.get(), size_t{64} << 20U).value(); });
        auto done = Result<>();
        {
            DataChannel channel(std::move(guest), stop);
            done = copyOut(source, channel);
        }
        thread.join();
        ARCA_CHECK(std::move(done));
        return got;
    }
    TestFolder folder;
    UniqueFd host, guest;
    StopSignal stop;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(copies, CopyFixture)

BOOST_AUTO_TEST_CASE(a_file_in) {
    const std::string bytes(3'000'000, 'b');
    BOOST_TEST(
        in(bytes, {.path = path("a/b/f"), .mode = 04755, .create_parents = true}).has_value());
    BOOST_TEST(contentOf(folder, "a/b/f") == bytes);
    BOOST_TEST(modeOf(folder, "a/b/f") == (S_IFREG | 0755U));
}

BOOST_AUTO_TEST_CASE(a_shorter_file_in) {
    folder.write("f", "something longer");
    BOOST_TEST(in("short", {.path = path("f")}).has_value());
    BOOST_TEST(contentOf(folder, "f") == "short");
    BOOST_TEST(modeOf(folder, "f") == (S_IFREG | 0644U));
}

BOOST_AUTO_TEST_CASE(without_the_parents) {
    const auto done = in("x", {.path = path("no/f")});
    BOOST_TEST_REQUIRE(!done.has_value());
    BOOST_TEST(done.error().sysErrno() == ENOENT);
}

BOOST_AUTO_TEST_CASE(a_folder_in) {
    BOOST_TEST(in(archiveOf({{"./", AE_IFDIR, "", 0711}, {"x/y", AE_IFREG, "z"}}),
                  {.path = path("to/here"), .is_archive = true})
                   .has_value());
    BOOST_TEST(contentOf(folder, "to/here/x/y") == "z");
    BOOST_TEST(modeOf(folder, "to/here") == (S_IFDIR | 0711U));
}

BOOST_AUTO_TEST_CASE(the_mode_of_a_folder_that_was_there_stays) {
    (void)::mkdirat(folder.fd(), "to", 0700);
    BOOST_TEST(in(archiveOf({{"./", AE_IFDIR, "", 0777}, {"y", AE_IFREG, "z"}}),
                  {.path = path("to"), .is_archive = true})
                   .has_value());
    BOOST_TEST(modeOf(folder, "to") == (S_IFDIR | 0700U));
}

BOOST_AUTO_TEST_CASE(an_exact_folder_in) {
    BOOST_TEST(in(archiveOf({{"./", AE_IFDIR, "", 0711},
                             {"f", AE_IFREG, "z", 04755},
                             {"again", AE_IFREG, "", 0644, "f"}}),
                  {.path = path("to"), .is_archive = true, .exact = true})
                   .has_value());
    BOOST_TEST(contentOf(folder, "to/again") == "z");
    BOOST_TEST(modeOf(folder, "to/again") == (S_IFREG | 04755U));
}

BOOST_AUTO_TEST_CASE(files_and_folders_out) {
    folder.write("f", std::string(1'000'000, 'x'));
    BOOST_TEST(openCopySource(path("f"))->size == 1'000'000U);
    BOOST_TEST(out("f").value() == contentOf(folder, "f"));
    BOOST_TEST((openCopySource(path("no")).error().code() == Code::kNotFound));
    (void)::mkfifoat(folder.fd(), "fifo", 0644);
    BOOST_TEST((openCopySource(path("fifo")).error().code() == Code::kInvalidArgument));
    BOOST_TEST(openCopySource(path("."))->is_archive);
}

BOOST_AUTO_TEST_CASE(a_folder_out) {
    (void)::mkdirat(folder.fd(), "d", 0755);
    folder.write("d/f", "text");
    const auto bytes = out("d");
    BOOST_TEST_REQUIRE(bytes.has_value());
    TestFolder to;
    BOOST_TEST(archive::unpackBytes(to.fd(), *bytes).has_value());
    BOOST_TEST(contentOf(to, "f") == "text");
}

BOOST_AUTO_TEST_CASE(a_host_that_says_nothing_is_not_waited_for) {
    DataChannel channel(std::move(guest), stop, std::chrono::milliseconds(50));
    const auto done = copyIn({.path = path("f")}, channel);
    BOOST_TEST_REQUIRE(!done.has_value());
    BOOST_TEST((done.error().code() == Code::kDeadlineExceeded));
}

BOOST_AUTO_TEST_CASE(a_host_that_reads_nothing_is_not_waited_for) {
    folder.write("f", std::string(4'000'000, 'x'));
    DataChannel channel(std::move(guest), stop, std::chrono::milliseconds(50));
    const auto done = copyOut(*openCopySource(path("f")), channel);
    BOOST_TEST_REQUIRE(!done.has_value());
    BOOST_TEST((done.error().code() == Code::kDeadlineExceeded));
}

BOOST_AUTO_TEST_CASE(a_cancelled_copy_ends_at_once) {
    DataChannel channel(std::move(guest), stop);
    std::thread canceller([this] { stop.set(); });
    const auto done = copyIn({.path = path("f")}, channel);
    canceller.join();
    BOOST_TEST_REQUIRE(!done.has_value());
    BOOST_TEST(done.error().message() == "cancelled");
}

BOOST_AUTO_TEST_CASE(a_host_that_goes_away_is_an_error) {
    folder.write("f", std::string(4'000'000, 'x'));
    host.reset();
    DataChannel channel(std::move(guest), stop);
    const auto done = copyOut(*openCopySource(path("f")), channel);
    BOOST_TEST_REQUIRE(!done.has_value());
    BOOST_TEST((done.error().code() == Code::kUnavailable));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd

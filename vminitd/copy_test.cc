// Archives and copies, among them the ones made to break out.
#include "vminitd/copy.h"

#include <archive.h>
#include <archive_entry.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <functional>
#include <thread>

#include "base/files.h"
#include "base/socket.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

using base::Code;
using base::Result;
using base::UniqueFd;

// One entry of an archive that a test makes, with what no tool would make.
struct Entry {
    std::string path;
    unsigned type = AE_IFREG;
    std::string content{};  // or the target of a symlink
    mode_t mode = 0644;
    std::string hardlink{};
};

std::string archiveOf(const std::vector<Entry>& entries) {
    std::string out(size_t{1} << 20U, '\0');
    size_t used = 0;
    struct archive* a = ::archive_write_new();
    (void)::archive_write_set_format_pax(a);
    (void)::archive_write_add_filter_gzip(a);
    (void)::archive_write_open_memory(a, out.data(), out.size(), &used);
    for (const Entry& entry : entries) {
        struct archive_entry* e = ::archive_entry_new();
        ::archive_entry_set_pathname(e, entry.path.c_str());
        ::archive_entry_set_filetype(e, entry.type);
        ::archive_entry_set_perm(e, entry.mode);
        ::archive_entry_set_uid(e, ::geteuid());
        ::archive_entry_set_gid(e, ::getegid());
        const bool file = entry.type == AE_IFREG && entry.hardlink.empty();
        ::archive_entry_set_size(e, file ? static_cast<int64_t>(entry.content.size()) : 0);
        if (entry.type == AE_IFLNK) ::archive_entry_set_symlink(e, entry.content.c_str());
        if (!entry.hardlink.empty()) ::archive_entry_set_hardlink(e, entry.hardlink.c_str());
        (void)::archive_write_header(a, e);
        if (file) (void)::archive_write_data(a, entry.content.data(), entry.content.size());
        ::archive_entry_free(e);
    }
    (void)::archive_write_close(a);
    (void)::archive_write_free(a);
    out.resize(used);
    return out;
}

ByteSource sourceOf(const std::string& bytes, size_t& at) {
    return [&bytes, &at](char* to, size_t size) -> Result<size_t> {
        const size_t n = std::min(size, bytes.size() - at);
        bytes.copy(to, n, at);
        at += n;
        return n;
    };
}

Result<Unpacked> unpack(const TestFolder& folder, const std::string& bytes,
                        const ArchiveLimits& limits = {}) {
    size_t at = 0;
    return unpackTree(folder.fd(), sourceOf(bytes, at), false, limits);
}

Result<std::string> pack(const TestFolder& folder, const ArchiveLimits& limits = {}) {
    std::string out;
    ARCA_CHECK(packTree(
        folder.fd(),
        [&out](std::string_view data) -> Result<> {
            out += data;
            return {};
        },
        limits));
    return out;
}

bool there(const TestFolder& folder, const std::string& name) {
    struct stat st {};
    return ::fstatat(folder.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
}

mode_t modeOf(const TestFolder& folder, const std::string& name) {
    struct stat st {};
    return ::fstatat(folder.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_mode : 0;
}

std::string linkOf(const TestFolder& folder, const std::string& name) {
    std::string out(4096, '\0');
    const ssize_t n = ::readlinkat(folder.fd(), name.c_str(), out.data(), out.size());
    out.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return out;
}

std::string contentOf(const TestFolder& folder, const std::string& name) {
    return base::readFile(name, size_t{64} << 20U, folder.fd()).value_or("(none)");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(archives)

BOOST_AUTO_TEST_CASE(a_tree_arrives_as_it_was) {
    TestFolder from;
    TestFolder to;
    (void)::mkdirat(from.fd(), "d", 0750);
    from.write("d/f", std::string(700'000, 'x') + "end");
    (void)::fchmodat(from.fd(), "d/f", 06751, 0);
    from.write("empty", "");
    from.write("d/\xc3\xa9\xff", "name");
    from.write("d/" + std::string(200, 'n'), "long");
    (void)::symlinkat("d/f", from.fd(), "link");
    (void)::symlinkat("../empty", from.fd(), "d/up");
    (void)::linkat(from.fd(), "d/f", from.fd(), "second", 0);
    const auto packed = pack(from);
    BOOST_TEST_REQUIRE(packed.has_value());
    const auto unpacked = unpack(to, *packed);
    BOOST_TEST_REQUIRE(unpacked.has_value(), why(unpacked));
    BOOST_TEST(unpacked->entries == 9U);  // the root among them
    BOOST_TEST(unpacked->skipped == 0U);
    BOOST_TEST(contentOf(to, "d/f") == contentOf(from, "d/f"));
    BOOST_TEST(contentOf(to, "second") == contentOf(from, "d/f"));
    BOOST_TEST(contentOf(to, "empty") == "");
    BOOST_TEST(contentOf(to, "d/\xc3\xa9\xff") == "name");
    BOOST_TEST(contentOf(to, "d/" + std::string(200, 'n')) == "long");
    BOOST_TEST(linkOf(to, "link") == "d/f");
    BOOST_TEST(linkOf(to, "d/up") == "../empty");
    BOOST_TEST(modeOf(to, "d/f") == (S_IFREG | 0751U));  // no set-id bits
    BOOST_TEST(modeOf(to, "d") == (S_IFDIR | 0750U));
    // And once more over it.
    BOOST_TEST(unpack(to, *packed).has_value());
    BOOST_TEST(contentOf(to, "d/f") == contentOf(from, "d/f"));
}

BOOST_AUTO_TEST_CASE(links_that_leave_the_tree_and_devices_stay_behind) {
    TestFolder from;
    TestFolder to;
    (void)::mkdirat(from.fd(), "d", 0755);
    (void)::symlinkat("/etc/passwd", from.fd(), "absolute");
    (void)::symlinkat("../x", from.fd(), "up");
    (void)::symlinkat("../../x", from.fd(), "d/up2");
    (void)::symlinkat("../d/../ok", from.fd(), "d/ok");
    (void)::symlinkat("a/../../x", from.fd(), "sly");
    (void)::mkfifoat(from.fd(), "fifo", 0644);
    BOOST_TEST_REQUIRE(unpack(to, *pack(from)).has_value());
    BOOST_TEST(base::listDir(to.fd())->size() == 1U);
    BOOST_TEST(linkOf(to, "d/ok") == "../d/../ok");
    BOOST_TEST(!there(to, "d/up2"));
}

BOOST_AUTO_TEST_CASE(no_path_leads_out) {
    for (const char* path : {"/absolute", "../x", "a/../../x", "..", "a/.."}) {
        TestFolder to;
        const auto unpacked = unpack(to, archiveOf({{path, AE_IFREG, "x"}}));
        BOOST_TEST_REQUIRE(!unpacked.has_value(), path);
        BOOST_TEST((unpacked.error().code() == Code::kInvalidArgument));
        BOOST_TEST(base::listDir(to.fd())->empty());
    }
}

BOOST_AUTO_TEST_CASE(symlinks_on_the_way_are_replaced_not_followed) {
    TestFolder outside;
    TestFolder to;
    outside.write("f", "mine");
    (void)::symlinkat(outside.path().c_str(), to.fd(), "there");
    (void)::symlinkat((outside.path() + "/f").c_str(), to.fd(), "file");
    const auto unpacked = unpack(to, archiveOf({{"made", AE_IFLNK, outside.path()},
                                                {"made/f", AE_IFREG, "theirs"},
                                                {"there/f", AE_IFREG, "theirs"},
                                                {"there/d/", AE_IFDIR, "", 0700},
                                                {"file", AE_IFREG, "theirs"}}));
    BOOST_TEST_REQUIRE(unpacked.has_value(), why(unpacked));
    BOOST_TEST(contentOf(outside, "f") == "mine");
    BOOST_TEST(base::listDir(outside.fd())->size() == 1U);
    for (const char* name : {"made/f", "there/f", "file"}) {
        BOOST_TEST(contentOf(to, name) == "theirs");
    }
    BOOST_TEST(modeOf(to, "made") == (S_IFDIR | 0755U));
}

BOOST_AUTO_TEST_CASE(the_last_one_wins) {
    TestFolder to;
    const auto unpacked = unpack(to, archiveOf({{"a", AE_IFREG, "one"},
                                                {"a", AE_IFREG, "two"},
                                                {"b/c", AE_IFREG, "x"},
                                                {"b", AE_IFLNK, "a"},
                                                {"b/c", AE_IFREG, "y"},
                                                {"d/e/f", AE_IFREG, "x"},
                                                {"d/e", AE_IFREG, "file"},
                                                {"g", AE_IFREG, "file"},
                                                {"g", AE_IFDIR, "", 0711}}));
    BOOST_TEST_REQUIRE(unpacked.has_value(), why(unpacked));
    BOOST_TEST(contentOf(to, "a") == "two");
    BOOST_TEST(contentOf(to, "b/c") == "y");
    BOOST_TEST(contentOf(to, "d/e") == "file");
    BOOST_TEST(modeOf(to, "g") == (S_IFDIR | 0711U));
}

BOOST_AUTO_TEST_CASE(a_replaced_file_keeps_its_other_names) {
    TestFolder to;
    to.write("a", "old");
    (void)::linkat(to.fd(), "a", to.fd(), "other", 0);
    BOOST_TEST(unpack(to, archiveOf({{"a", AE_IFREG, "new"}})).has_value());
    BOOST_TEST(contentOf(to, "other") == "old");
}

BOOST_AUTO_TEST_CASE(other_kinds_are_left_out) {
    TestFolder to;
    to.write("victim", "x");
    const auto unpacked = unpack(to, archiveOf({{"dev", AE_IFCHR},
                                                {"fifo", AE_IFIFO},
                                                {"hard", AE_IFREG, "", 0644, "victim"},
                                                {"f", AE_IFREG, "x", 06777}}));
    BOOST_TEST_REQUIRE(unpacked.has_value());
    BOOST_TEST(unpacked->skipped == 3U);
    BOOST_TEST(base::listDir(to.fd())->size() == 2U);
    BOOST_TEST(modeOf(to, "f") == (S_IFREG | 0777U));
}

BOOST_AUTO_TEST_CASE(what_is_no_archive_is_refused) {
    const std::string good = archiveOf({{"a", AE_IFREG, std::string(100'000, 'a')}});
    for (const std::string& bytes :
         {std::string(), std::string("hello"), std::string(100'000, '\0'),
          std::string(100'000, 'x'), good.substr(0, good.size() / 2), archiveOf({})}) {
        TestFolder to;
        const auto unpacked = unpack(to, bytes);
        BOOST_TEST_REQUIRE(!unpacked.has_value());
        BOOST_TEST((unpacked.error().code() == Code::kInvalidArgument));
    }
}

BOOST_AUTO_TEST_CASE(limits_hold) {
    TestFolder to;
    const std::string bomb = archiveOf({{"zeros", AE_IFREG, std::string(700'000, '\0')}});
    BOOST_TEST(bomb.size() < 5'000U);
    const auto big = unpack(to, bomb, {.bytes = 500'000});
    BOOST_TEST_REQUIRE(!big.has_value());
    BOOST_TEST(big.error().message() == "unpack zeros: the files are more than 500000 bytes");
    BOOST_TEST(!there(to, "zeros"));
    const auto many = unpack(to, archiveOf({{"a"}, {"b"}, {"c"}}), {.entries = 2});
    BOOST_TEST_REQUIRE(!many.has_value());
    BOOST_TEST(many.error().message() == "archive: more than 2 entries");
    const auto deep = unpack(to, archiveOf({{"a/b/c/d"}}), {.depth = 3});
    BOOST_TEST((deep.error().code() == Code::kInvalidArgument));
    BOOST_TEST_REQUIRE(base::makeDirs(to.path() + "/1/2/3", 0755).has_value());
    to.write("f", "12345678");
    BOOST_TEST((pack(to, {.depth = 2}).error().code() == Code::kInvalidArgument));
    BOOST_TEST(pack(to, {.depth = 3}).has_value());
    BOOST_TEST((pack(to, {.bytes = 5}).error().code() == Code::kInvalidArgument));
    BOOST_TEST((pack(to, {.entries = 3}).error().code() == Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(errors_of_the_channel_are_passed_on) {
    TestFolder folder;
    folder.write("f", std::string(2'000'000, 'x'));
    const auto broken = [](auto...) { return base::fail(Code::kUnavailable, "gone"); };
    const auto packed =
        packTree(folder.fd(), [&](std::string_view) -> Result<> { return broken(); }, {});
    BOOST_TEST_REQUIRE(!packed.has_value());
    BOOST_TEST(packed.error().message() == "gone");
    const auto unpacked = unpackTree(
        folder.fd(), [&](char*, size_t) -> Result<size_t> { return broken(); }, false);
    BOOST_TEST_REQUIRE(!unpacked.has_value());
    BOOST_TEST(unpacked.error().message() == "gone");
}

BOOST_AUTO_TEST_SUITE_END()

namespace {

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
    BOOST_TEST(unpack(to, *bytes).has_value());
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

// Archives, among them the ones made to break out.
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "archive/test_archive.h"
#include "base/files.h"
#include "base/temp_dir.h"

namespace arca::archive {
namespace {

using base::Code;
using base::Result;
using base::TempDir;
using base::UniqueFd;

constexpr Fidelity kProtocol = Fidelity::kProtocol;
constexpr Fidelity kExact = Fidelity::kExact;

void write(const TempDir& folder, const std::string& name, const std::string& text) {
    const UniqueFd file(
        ::openat(folder.fd(), name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    (void)base::writeAll(file.get(), text);
}

// Why a Result is an error, for a test's message; "" when it is none.
template <typename T>
std::string why(const Result<T>& result) {
    return result ? std::string() : result.error().message();
}

struct stat statOf(const TempDir& folder, const std::string& name) {
    struct stat st {};
    (void)::fstatat(folder.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW);
    return st;
}

bool there(const TempDir& folder, const std::string& name) {
    struct stat st {};
    return ::fstatat(folder.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
}

mode_t modeOf(const TempDir& folder, const std::string& name) {
    struct stat st {};
    return ::fstatat(folder.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_mode : 0;
}

std::string linkOf(const TempDir& folder, const std::string& name) {
    std::string out(4096, '\0');
    const ssize_t n = ::readlinkat(folder.fd(), name.c_str(), out.data(), out.size());
    out.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return out;
}

std::string contentOf(const TempDir& folder, const std::string& name) {
    return base::readFile(name, size_t{64} << 20U, folder.fd()).value_or("(none)");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(archives)

BOOST_AUTO_TEST_CASE(a_tree_arrives_as_it_was) {
    TempDir from;
    TempDir to;
    (void)::mkdirat(from.fd(), "d", 0750);
    write(from, "d/f", std::string(700'000, 'x') + "end");
    (void)::fchmodat(from.fd(), "d/f", 06751, 0);
    write(from, "empty", "");
    write(from, "d/\xc3\xa9\xff", "name");
    write(from, "d/" + std::string(200, 'n'), "long");
    (void)::symlinkat("d/f", from.fd(), "link");
    (void)::symlinkat("../empty", from.fd(), "d/up");
    (void)::linkat(from.fd(), "d/f", from.fd(), "second", 0);
    const auto packed = packBytes(from.fd());
    BOOST_TEST_REQUIRE(packed.has_value());
    const auto unpacked = unpackBytes(to.fd(), *packed);
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
    BOOST_TEST(unpackBytes(to.fd(), *packed).has_value());
    BOOST_TEST(contentOf(to, "d/f") == contentOf(from, "d/f"));
}

BOOST_AUTO_TEST_CASE(links_that_leave_the_tree_and_devices_stay_behind) {
    TempDir from;
    TempDir to;
    (void)::mkdirat(from.fd(), "d", 0755);
    (void)::symlinkat("/etc/passwd", from.fd(), "absolute");
    (void)::symlinkat("../x", from.fd(), "up");
    (void)::symlinkat("../../x", from.fd(), "d/up2");
    (void)::symlinkat("../d/../ok", from.fd(), "d/ok");
    (void)::symlinkat("a/../../x", from.fd(), "sly");
    (void)::mkfifoat(from.fd(), "fifo", 0644);
    BOOST_TEST_REQUIRE(unpackBytes(to.fd(), *packBytes(from.fd())).has_value());
    BOOST_TEST(base::listDir(to.fd())->size() == 1U);
    BOOST_TEST(linkOf(to, "d/ok") == "../d/../ok");
    BOOST_TEST(!there(to, "d/up2"));
}

BOOST_AUTO_TEST_CASE(no_path_leads_out) {
    for (const char* path : {"/absolute", "../x", "a/../../x", "..", "a/.."}) {
        TempDir to;
        const auto unpacked = unpackBytes(to.fd(), archiveOf({{path, AE_IFREG, "x"}}));
        BOOST_TEST_REQUIRE(!unpacked.has_value(), path);
        BOOST_TEST((unpacked.error().code() == Code::kInvalidArgument));
        BOOST_TEST(base::listDir(to.fd())->empty());
    }
}

BOOST_AUTO_TEST_CASE(symlinks_on_the_way_are_replaced_not_followed) {
    TempDir outside;
    TempDir to;
    write(outside, "f", "mine");
    (void)::symlinkat(outside.path().c_str(), to.fd(), "there");
    (void)::symlinkat((outside.path() + "/f").c_str(), to.fd(), "file");
    const auto unpacked = unpackBytes(to.fd(), archiveOf({{"made", AE_IFLNK, outside.path()},
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
    TempDir to;
    const auto unpacked = unpackBytes(to.fd(), archiveOf({{"a", AE_IFREG, "one"},
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
    TempDir to;
    write(to, "a", "old");
    (void)::linkat(to.fd(), "a", to.fd(), "other", 0);
    BOOST_TEST(unpackBytes(to.fd(), archiveOf({{"a", AE_IFREG, "new"}})).has_value());
    BOOST_TEST(contentOf(to, "other") == "old");
}

BOOST_AUTO_TEST_CASE(other_kinds_are_left_out) {
    TempDir to;
    write(to, "victim", "x");
    const auto unpacked = unpackBytes(to.fd(), archiveOf({{"dev", AE_IFCHR},
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
        TempDir to;
        const auto unpacked = unpackBytes(to.fd(), bytes);
        BOOST_TEST_REQUIRE(!unpacked.has_value());
        BOOST_TEST((unpacked.error().code() == Code::kInvalidArgument));
    }
}

BOOST_AUTO_TEST_CASE(limits_hold) {
    TempDir to;
    const std::string bomb = archiveOf({{"zeros", AE_IFREG, std::string(700'000, '\0')}});
    BOOST_TEST(bomb.size() < 5'000U);
    const auto big = unpackBytes(to.fd(), bomb, kProtocol, {.bytes = 500'000});
    BOOST_TEST_REQUIRE(!big.has_value());
    BOOST_TEST(big.error().message() == "unpack zeros: the files are more than 500000 bytes");
    BOOST_TEST(!there(to, "zeros"));
    const auto many =
        unpackBytes(to.fd(), archiveOf({{"a"}, {"b"}, {"c"}}), kProtocol, {.entries = 2});
    BOOST_TEST_REQUIRE(!many.has_value());
    BOOST_TEST(many.error().message() == "archive: more than 2 entries");
    const auto deep = unpackBytes(to.fd(), archiveOf({{"a/b/c/d"}}), kProtocol, {.depth = 3});
    BOOST_TEST((deep.error().code() == Code::kInvalidArgument));
    BOOST_TEST_REQUIRE(base::makeDirs(to.path() + "/1/2/3", 0755).has_value());
    write(to, "f", "12345678");
    BOOST_TEST(
        (packBytes(to.fd(), kProtocol, {.depth = 2}).error().code() == Code::kInvalidArgument));
    BOOST_TEST(packBytes(to.fd(), kProtocol, {.depth = 3}).has_value());
    BOOST_TEST(
        (packBytes(to.fd(), kProtocol, {.bytes = 5}).error().code() == Code::kInvalidArgument));
    BOOST_TEST(
        (packBytes(to.fd(), kProtocol, {.entries = 3}).error().code() == Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(errors_of_the_channel_are_passed_on) {
    TempDir folder;
    write(folder, "f", std::string(2'000'000, 'x'));
    const auto broken = [](auto...) { return base::fail(Code::kUnavailable, "gone"); };
    const auto packed =
        packTree(folder.fd(), [&](std::string_view) -> Result<> { return broken(); });
    BOOST_TEST_REQUIRE(!packed.has_value());
    BOOST_TEST(packed.error().message() == "gone");
    const auto unpacked = unpackTree(
        folder.fd(), [&](char*, size_t) -> Result<size_t> { return broken(); }, false);
    BOOST_TEST_REQUIRE(!unpacked.has_value());
    BOOST_TEST(unpacked.error().message() == "gone");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(exact_archives)

BOOST_AUTO_TEST_CASE(files_with_several_names_arrive_as_one) {
    TempDir from;
    TempDir to;
    (void)::mkdirat(from.fd(), "d", 0755);
    write(from, "d/one", "text");
    (void)::linkat(from.fd(), "d/one", from.fd(), "two", 0);
    (void)::linkat(from.fd(), "d/one", from.fd(), "d/three", 0);
    (void)::symlinkat("nowhere", from.fd(), "link");
    (void)::linkat(from.fd(), "link", from.fd(), "link2", 0);
    const auto packed = packBytes(from.fd(), kExact);
    BOOST_TEST_REQUIRE(packed.has_value(), why(packed));
    // Twice: what is there already is replaced by the same.
    for (int i = 0; i < 2; ++i) {
        const auto unpacked = unpackBytes(to.fd(), *packed, kExact);
        BOOST_TEST_REQUIRE(unpacked.has_value(), why(unpacked));
        BOOST_TEST(unpacked->skipped == 0U);
        BOOST_TEST(contentOf(to, "two") == "text");
        BOOST_TEST(statOf(to, "two").st_nlink == 3U);
        BOOST_TEST(statOf(to, "two").st_ino == statOf(to, "d/three").st_ino);
        BOOST_TEST(statOf(to, "link").st_ino == statOf(to, "link2").st_ino);
        BOOST_TEST(linkOf(to, "link2") == "nowhere");
    }
}

BOOST_AUTO_TEST_CASE(modes_and_times_arrive_as_they_were) {
    TempDir from;
    TempDir to;
    (void)::mkdirat(from.fd(), "d", 0755);
    write(from, "d/f", "x");
    (void)::fchmodat(from.fd(), "d/f", 06751, 0);
    (void)::fchmodat(from.fd(), "d", 03775, 0);
    (void)::symlinkat("/absolute", from.fd(), "d/l");
    (void)::mkfifoat(from.fd(), "d/fifo", 0600);
    (void)::fchmodat(from.fd(), "d/fifo", 0620, 0);
    const timespec times[2] = {{1'000'000'000, 5}, {1'100'000'000, 123'456'789}};
    for (const char* name : {"d/f", "d/l", "d/fifo", "d", "."}) {
        BOOST_TEST(::utimensat(from.fd(), name, times, AT_SYMLINK_NOFOLLOW) == 0);
    }
    const auto unpacked =
        unpackBytes(to.fd(), packBytes(from.fd(), kExact).value(), kExact, {}, true);
    BOOST_TEST_REQUIRE(unpacked.has_value(), why(unpacked));
    BOOST_TEST(modeOf(to, "d/f") == (S_IFREG | 06751U));
    BOOST_TEST(modeOf(to, "d") == (S_IFDIR | 03775U));
    BOOST_TEST(modeOf(to, "d/fifo") == (S_IFIFO | 0620U));
    BOOST_TEST(linkOf(to, "d/l") == "/absolute");
    for (const char* name : {"d/f", "d/l", "d/fifo", "d", "."}) {
        BOOST_TEST(statOf(to, name).st_mtim.tv_sec == 1'100'000'000, name);
        BOOST_TEST(statOf(to, name).st_mtim.tv_nsec == 123'456'789, name);
    }
}

BOOST_AUTO_TEST_CASE(devices_owners_and_attributes_arrive_where_they_may_be_made) {
    TempDir from;
    TempDir to;
    if (::mknodat(from.fd(), "null", S_IFCHR | 0666, ::makedev(1, 3)) != 0) {
        BOOST_TEST_MESSAGE("skipped: no devices may be made here");
        return;
    }
    (void)::fchmodat(from.fd(), "null", 0640, 0);
    (void)::mknodat(from.fd(), "disk", S_IFBLK | 0600, ::makedev(259, 300));
    write(from, "f", "x");
    for (const char* name : {"null", "disk", "f"}) {
        BOOST_TEST(::fchownat(from.fd(), name, 1234, 5'000'000, 0) == 0);
    }
    const std::string value("a\0b=\n\xff", 6);
    const std::string path = from.path() + "/f";
    BOOST_TEST(::setxattr(path.c_str(), "trusted.arca", value.data(), value.size(), 0) == 0);
    // cap_net_raw, as setcap(8) writes it.
    const std::string capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    BOOST_TEST(::setxattr(path.c_str(), "security.capability", capability.data(), capability.size(),
                          0) == 0);
    const auto unpacked = unpackBytes(to.fd(), packBytes(from.fd(), kExact).value(), kExact);
    BOOST_TEST_REQUIRE(unpacked.has_value(), why(unpacked));
    BOOST_TEST(unpacked->lost_attributes == 0U);
    BOOST_TEST(modeOf(to, "null") == (S_IFCHR | 0640U));
    BOOST_TEST(statOf(to, "null").st_rdev == ::makedev(1, 3));
    BOOST_TEST(modeOf(to, "disk") == (S_IFBLK | 0600U));
    BOOST_TEST(statOf(to, "disk").st_rdev == ::makedev(259, 300));
    for (const char* name : {"null", "disk", "f"}) {
        BOOST_TEST(statOf(to, name).st_uid == 1234U);
        BOOST_TEST(statOf(to, name).st_gid == 5'000'000U);
    }
    for (const auto& [name, wanted] :
         {std::pair{"trusted.arca", value}, std::pair{"security.capability", capability}}) {
        std::string got(100, '\0');
        const ssize_t n = ::getxattr((to.path() + "/f").c_str(), name, got.data(), got.size());
        got.resize(n < 0 ? 0 : static_cast<size_t>(n));
        BOOST_TEST((got == wanted), name);
    }
}

BOOST_AUTO_TEST_CASE(sockets_stay_behind) {
    TempDir from;
    TempDir to;
    BOOST_TEST(::mknodat(from.fd(), "s", S_IFSOCK | 0600, 0) == 0);
    BOOST_TEST(unpackBytes(to.fd(), packBytes(from.fd(), kExact).value(), kExact).has_value());
    BOOST_TEST(base::listDir(to.fd())->empty());
}

BOOST_AUTO_TEST_CASE(a_hard_link_leads_nowhere_else) {
    TempDir outside;
    write(outside, "f", "mine");
    for (const std::string& target :
         {std::string("/etc/passwd"), std::string("../f"), std::string("there/f"),
          std::string("no"), std::string("."), outside.path() + "/f"}) {
        TempDir to;
        (void)::symlinkat(outside.path().c_str(), to.fd(), "there");
        const auto unpacked =
            unpackBytes(to.fd(), archiveOf({{"a", AE_IFREG, "", 0644, target}}), kExact);
        BOOST_TEST(!unpacked.has_value(), target);
        BOOST_TEST(!there(to, "a"));
    }
    BOOST_TEST(statOf(outside, "f").st_nlink == 1U);
    // Of a symlink it is the symlink that gets another name, and not what it leads to.
    TempDir to;
    const auto unpacked = unpackBytes(
        to.fd(),
        archiveOf({{"l", AE_IFLNK, outside.path() + "/f"}, {"a", AE_IFREG, "", 0644, "l"}}),
        kExact);
    BOOST_TEST_REQUIRE(unpacked.has_value(), why(unpacked));
    BOOST_TEST(linkOf(to, "a") == outside.path() + "/f");
    BOOST_TEST(statOf(outside, "f").st_nlink == 1U);
}

BOOST_AUTO_TEST_CASE(limits_hold_for_what_is_remembered) {
    TempDir from;
    TempDir to;
    for (const char* name : {"a", "b", "c"}) {
        write(from, name, "x");
        (void)::linkat(from.fd(), name, from.fd(), (std::string(name) + "2").c_str(), 0);
    }
    const auto packed = packBytes(from.fd(), kExact, {.links = 2});
    BOOST_TEST_REQUIRE(!packed.has_value());
    BOOST_TEST(packed.error().message() == "more than 2 files with several names");
    BOOST_TEST(packBytes(from.fd(), kExact, {.links = 3}).has_value());
    const auto unpacked =
        unpackBytes(to.fd(), archiveOf({{"a", AE_IFDIR}, {"b", AE_IFDIR}, {"c", AE_IFDIR}}), kExact,
                    {.links = 2});
    BOOST_TEST_REQUIRE(!unpacked.has_value());
    BOOST_TEST(unpacked.error().message() == "unpack c/: more than 2 folders");
}

BOOST_AUTO_TEST_CASE(one_file_alone) {
    TempDir from;
    TempDir to;
    write(from, "f", "text");
    (void)::fchmodat(from.fd(), "f", 04711, 0);
    const UniqueFd file(::openat(from.fd(), "f", O_RDONLY | O_CLOEXEC));
    std::string bytes;
    const ByteSink sink = [&](std::string_view data) -> Result<> {
        bytes += data;
        return {};
    };
    const auto packed = packFile(file.get(), "file", sink, kExact);
    BOOST_TEST_REQUIRE(packed.has_value(), why(packed));
    BOOST_TEST(packed->bytes == 4U);
    BOOST_TEST_REQUIRE(unpackBytes(to.fd(), bytes, kExact).has_value());
    BOOST_TEST(contentOf(to, "file") == "text");
    BOOST_TEST(modeOf(to, "file") == (S_IFREG | 04711U));
}

// For a reader that keeps less: by name, or knowingly.
BOOST_AUTO_TEST_CASE(what_would_be_lost_is_an_error_or_allowed) {
    const auto with = [](auto make) {
        TempDir from;
        TempDir to;
        (void)::symlinkat("/absolute", from.fd(), "l");
        write(from, "f", "x");
        make(from);
        const auto refused = packBytes(from.fd(), Fidelity::kProtocolOrError);
        const auto packed = packBytes(from.fd(), Fidelity::kProtocolWithLosses);
        BOOST_TEST_REQUIRE(packed.has_value(), why(packed));
        BOOST_TEST_REQUIRE(unpackBytes(to.fd(), *packed).has_value());
        BOOST_TEST(contentOf(to, "f") == "x");
        BOOST_TEST(linkOf(to, "l") == "/absolute");
        return refused ? std::string("no error") : refused.error().message();
    };
    BOOST_TEST(with([](const TempDir&) {}) == "no error");
    BOOST_TEST(with([](const TempDir& dir) { (void)::fchmodat(dir.fd(), "f", 04755, 0); }) ==
               "f: set-user-id bit");
    BOOST_TEST(with([](const TempDir& dir) { (void)::fchmodat(dir.fd(), "f", 02755, 0); }) ==
               "f: set-group-id bit");
    BOOST_TEST(with([](const TempDir& dir) {
                   (void)::mkdirat(dir.fd(), "d", 0755);
                   (void)::fchmodat(dir.fd(), "d", 01777, 0);
               }) == "d: sticky bit");
    BOOST_TEST(with([](const TempDir& dir) { (void)::mkfifoat(dir.fd(), "p", 0600); }) ==
               "p: a FIFO");
    BOOST_TEST(with([](const TempDir& dir) {
                   (void)::linkat(dir.fd(), "f", dir.fd(), "again", 0);
               }) == "no error");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::archive

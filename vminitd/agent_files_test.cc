// Paths, single files and the resolver's files: what an image's symlinks cannot do.
#include "vminitd/agent_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "vminitd/resolver_files.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

using base::Code;

// A folder of containers with one, "c", whose image has made symlinks of all kinds.
struct Image {
    Image() {
        containers = outside.path() + "/containers";
        rootfs = containers + "/c/rootfs";
        BOOST_TEST_REQUIRE(base::makeDirs(rootfs + "/real", 0755).has_value());
        outside.write("secret", "secret");
        BOOST_TEST_REQUIRE(::symlink(outside.path().c_str(), (rootfs + "/absolute").c_str()) == 0);
        BOOST_TEST_REQUIRE(::symlink("../../../..", (rootfs + "/up").c_str()) == 0);
        BOOST_TEST_REQUIRE(::symlink("/real", (rootfs + "/inside").c_str()) == 0);
    }
    GuestPath path(const std::string& text) const {
        auto parsed = GuestPath::parse(text, containers);
        BOOST_TEST_REQUIRE(parsed.has_value(), why(parsed));
        return *parsed;
    }
    bool there(const std::string& path_text) const {
        struct stat st {};
        return ::lstat(path_text.c_str(), &st) == 0;
    }
    mode_t modeOf(const std::string& path_text) const {
        struct stat st {};
        return ::lstat(path_text.c_str(), &st) == 0 ? st.st_mode & 07777U : 0;
    }

    TestFolder outside;
    std::string containers;
    std::string rootfs;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(agent_files, Image)

BOOST_AUTO_TEST_CASE(malformed_paths_are_refused) {
    const std::string nul("/a\0b", 4);
    for (const std::string& text :
         {std::string(), std::string("a"), std::string("../a"), nul, std::string("/a/../b"),
          "/" + std::string(5000, 'a'), containers + "/../x", containers + "/c/../d/rootfs/x",
          containers + "/c/..", std::string("/..")}) {
        const auto parsed = GuestPath::parse(text, containers);
        BOOST_TEST(!parsed.has_value(), text);
        if (!parsed) BOOST_TEST((parsed.error().code() == Code::kInvalidArgument));
    }
}

BOOST_AUTO_TEST_CASE(paths_below_a_containers_folder_are_its_own) {
    BOOST_TEST(path(rootfs + "/a").confined());
    BOOST_TEST(path(rootfs + "/../../a").confined());
    BOOST_TEST(path(containers + "//c/./rootfs//a/").text() == rootfs + "/a");
    BOOST_TEST(path(rootfs).confined());
    BOOST_TEST(!path(containers + "/c").confined());
    BOOST_TEST(!path(rootfs).parent().confined());
    BOOST_TEST(path(rootfs).parent().text() == containers + "/c");
    BOOST_TEST(path(rootfs + "/a/b").parent().text() == rootfs + "/a");
    BOOST_TEST(path(rootfs + "/a").parent().name() == "");
    BOOST_TEST(path("/").parent().text() == "/");
    BOOST_TEST(path("/a").parent().text() == "/");
    BOOST_TEST(path("/").child("a").text() == "/a");
    BOOST_TEST(path(containers + "x/c/rootfs/a").confined() == false);
}

BOOST_AUTO_TEST_CASE(symlinks_of_an_image_stay_inside) {
    BOOST_TEST(statFile(path(outside.path() + "/secret")).has_value());
    BOOST_TEST((statFile(path(rootfs + "/absolute/secret")).error().code() == Code::kNotFound));
    BOOST_TEST((statFile(path(rootfs + "/up/secret")).error().code() == Code::kNotFound));
    BOOST_TEST((statFile(path(rootfs + "/../../../secret")).error().code() == Code::kNotFound));
    BOOST_TEST(statFile(path(rootfs + "/inside")).has_value());
    for (const char* link : {"/absolute", "/up"}) {
        const WriteFileRequest request{.data = "x", .create_if_missing = true};
        (void)writeFile(path(rootfs + link + "/secret"), request);
        BOOST_TEST(*base::readFile(outside.path() + "/secret") == "secret");
        (void)makeDirectory(path(rootfs + link + "/made"), true, 0);
        BOOST_TEST(!there(outside.path() + "/made"));
    }
    BOOST_TEST(makeDirectory(path(rootfs + "/inside/made"), false, 0700).has_value());
    BOOST_TEST(modeOf(rootfs + "/real/made") == 0700U);
    // A symlink in the place of the folder itself is none of the agent's making.
    BOOST_TEST_REQUIRE(::symlink(outside.path().c_str(), (containers + "/c/fake").c_str()) == 0);
    BOOST_TEST(!statFile(path(containers + "/c/fake/secret")).has_value());
}

BOOST_AUTO_TEST_CASE(mkdir_honours_mode_and_all) {
    const mode_t before = ::umask(077);
    BOOST_TEST((makeDirectory(path(rootfs + "/a/b"), false, 0).error().code() == Code::kNotFound));
    BOOST_TEST(makeDirectory(path(rootfs + "/a/b"), true, 01777).has_value());
    BOOST_TEST(modeOf(rootfs + "/a/b") == 01777U);
    (void)::umask(before);
    BOOST_TEST(makeDirectory(path(rootfs + "/a/b"), true, 0700).has_value());
    BOOST_TEST(modeOf(rootfs + "/a/b") == 01777U);
    BOOST_TEST(
        (makeDirectory(path(rootfs + "/a/b"), false, 0700).error().code() == Code::kAlreadyExists));
    outside.write("containers/c/rootfs/file", "");
    BOOST_TEST(!makeDirectory(path(rootfs + "/file"), true, 0).has_value());
    BOOST_TEST(makeDirectory(path(rootfs), true, 0).has_value());
    BOOST_TEST(!makeDirectory(path(rootfs), false, 0).has_value());
    BOOST_TEST(makeDirectory(path(containers + "/new/rootfs/x"), true, 0).has_value());
}

BOOST_AUTO_TEST_CASE(write_replaces_or_appends) {
    const auto file = path(rootfs + "/dir/f");
    WriteFileRequest request{.data = "a longer text"};
    BOOST_TEST(!writeFile(file, request).has_value());
    request.create_if_missing = true;
    BOOST_TEST(!writeFile(file, request).has_value());
    request.create_parent_dirs = true;
    BOOST_TEST(writeFile(file, request).has_value());
    BOOST_TEST(modeOf(file.text()) == 0644U);
    request.data = "short";
    request.mode = 0600;
    BOOST_TEST(writeFile(file, request).has_value());
    BOOST_TEST(*base::readFile(file.text()) == "short");
    BOOST_TEST(modeOf(file.text()) == 0644U);  // of a new file only
    request.append = true;
    request.data = "er";
    BOOST_TEST(writeFile(file, request).has_value());
    BOOST_TEST(*base::readFile(file.text()) == "shorter");
    request.mode = 04755;
    BOOST_TEST(writeFile(path(rootfs + "/new"), request).has_value());
    BOOST_TEST(modeOf(rootfs + "/new") == 04755U);
    // Through a symlink to nowhere: its target is made, inside.
    BOOST_TEST_REQUIRE(::symlink("/real/target", (rootfs + "/dangling").c_str()) == 0);
    BOOST_TEST(writeFile(path(rootfs + "/dangling"), request).has_value());
    BOOST_TEST(there(rootfs + "/real/target"));
}

BOOST_AUTO_TEST_CASE(what_is_no_file_does_not_hold_anybody_up) {
    BOOST_TEST_REQUIRE(::mkfifo((rootfs + "/fifo").c_str(), 0666) == 0);
    const WriteFileRequest request{.data = "x", .create_if_missing = true};
    BOOST_TEST(!writeFile(path(rootfs + "/fifo"), request).has_value());
    const base::UniqueFd reader(
        ::open((rootfs + "/fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    BOOST_TEST(
        (writeFile(path(rootfs + "/fifo"), request).error().code() == Code::kInvalidArgument));
    BOOST_TEST(!writeFile(path(rootfs + "/real"), request).has_value());
    BOOST_TEST(writeFile(path("/dev/null"), request).has_value());
}

BOOST_AUTO_TEST_CASE(filesystem_operations_want_a_real_path) {
    BOOST_TEST(
        (filesystemOperation(path(rootfs + "/nosuch"), FilesystemAction::kTrim).error().code() ==
         Code::kNotFound));
    const auto link = filesystemOperation(path(rootfs + "/inside"), FilesystemAction::kFreeze);
    BOOST_TEST_REQUIRE(!link.has_value());
    BOOST_TEST(link.error().message() == rootfs + "/inside: path cannot be a symlink");
    BOOST_TEST_REQUIRE(::mkfifo((rootfs + "/fifo").c_str(), 0666) == 0);
    BOOST_TEST(
        (filesystemOperation(path(rootfs + "/fifo"), FilesystemAction::kThaw).error().code() ==
         Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(resolver_texts) {
    BOOST_TEST(*resolvConf({.nameservers = {"1.1.1.1", "fd00::1"},
                            .domain = "a.test",
                            .search_domains = {"a.test", "b.test"},
                            .options = {"ndots:2", "rotate"}}) ==
               "nameserver 1.1.1.1\nnameserver fd00::1\ndomain a.test\nsearch a.test b.test\n"
               "options ndots:2 rotate\n");
    BOOST_TEST(*resolvConf({}) == "");
    for (const char* bad : {"", "1.1.1.1\nnameserver 6.6.6.6", "a b", "a\tb", "a\rb"}) {
        BOOST_TEST(!resolvConf({.nameservers = {bad}}).has_value(), bad);
        BOOST_TEST(!resolvConf({.search_domains = {bad}}).has_value(), bad);
        BOOST_TEST(!resolvConf({.options = {bad}}).has_value(), bad);
        BOOST_TEST(!hostsText({{.address = bad}}, {}).has_value(), bad);
        BOOST_TEST(!hostsText({{.address = "::1", .names = {bad}}}, {}).has_value(), bad);
    }
    BOOST_TEST(!resolvConf({.domain = "a\nb"}).has_value());
    BOOST_TEST(!hostsText({}, "a\nb").has_value());
    BOOST_TEST(!hostsText({{.address = "::1", .names = {}, .comment = "a\nb"}}, {}).has_value());
    BOOST_TEST(*hostsText({{.address = "127.0.0.1", .names = {"localhost"}},
                           {.address = "::1", .names = {"a", "b"}, .comment = "six"}},
                          "made for you") ==
               "# made for you\n127.0.0.1 localhost\n::1 a b # six \n");
}

BOOST_AUTO_TEST_CASE(resolver_files_stay_in_their_location) {
    BOOST_TEST(replaceEtcFile(path(rootfs), "hosts", "one\n").has_value());
    BOOST_TEST(*base::readFile(rootfs + "/etc/hosts") == "one\n");
    BOOST_TEST(modeOf(rootfs + "/etc/hosts") == 0644U);
    // The file itself may be a symlink: it is replaced, not followed.
    const std::string victim = outside.path() + "/secret";
    BOOST_TEST_REQUIRE(::symlink(victim.c_str(), (rootfs + "/etc/resolv.conf").c_str()) == 0);
    BOOST_TEST(replaceEtcFile(path(rootfs), "resolv.conf", "two\n").has_value());
    BOOST_TEST(*base::readFile(victim) == "secret");
    BOOST_TEST(*base::readFile(rootfs + "/etc/resolv.conf") == "two\n");
    // etc may be one, also of a location that is no container's.
    const std::string plain = outside.path() + "/plain";
    BOOST_TEST_REQUIRE(base::makeDirs(plain, 0755).has_value());
    BOOST_TEST_REQUIRE(::symlink(outside.path().c_str(), (plain + "/etc").c_str()) == 0);
    BOOST_TEST(replaceEtcFile(path(plain), "secret", "three\n").has_value());
    BOOST_TEST(*base::readFile(victim) == "secret");
    const auto none = replaceEtcFile(path(rootfs + "/nosuch"), "hosts", "");
    BOOST_TEST_REQUIRE(!none.has_value());
    BOOST_TEST(none.error().message().find("/etc/hosts: open ") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd

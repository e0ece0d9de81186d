#include "runtime/settings.h"

#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <fstream>

#include "runtime/drivers/guest_files.h"
#include "runtime/drivers/guest_spec.h"
#include "runtime/drivers/vm_config.h"
#include "runtime/monitor/config.h"
#include "runtime/scratch_dir_test.h"

namespace {

using namespace arca::runtime;
namespace spec = arca::spec;
using arca::base::Code;

BOOST_AUTO_TEST_SUITE(settings)

BOOST_AUTO_TEST_CASE(every_member_is_read) {
    const auto settings = parseSettings(R"({"sandbox":"vm","vm":{"kernel":"/k","initrd":"/i",
        "qemu":"/q","virtiofsd":"/v","accel":"tcg","vsock":"user","append":"a b","memory_mib":300,"vcpus":2,
        "boot_seconds":7,"rootfs":"copy","copy_mib":5},"connect":{"paths":{"/h/":"/g"},"ignore":["seccomp"],
        "rootfs":{"device":"/dev/vdb","type":"xfs","options":["a","b"]},"binds":"copy","copy_mib":6},
        "allowed_annotations":["io.arca.vm.vcpus"]})");
    BOOST_TEST_REQUIRE(settings.has_value());
    BOOST_TEST(settings->sandbox == "vm");
    BOOST_TEST(settings->vm.kernel == "/k");
    BOOST_TEST(settings->vm.initrd == "/i");
    BOOST_TEST(settings->vm.qemu == "/q");
    BOOST_TEST(settings->vm.virtiofsd == "/v");
    BOOST_TEST(settings->vm.accel == "tcg");
    BOOST_TEST(settings->vm.vsock == "user");
    BOOST_TEST(settings->vm.append == "a b");
    BOOST_TEST(settings->vm.memory_mib.value() == 300U);
    BOOST_TEST(settings->vm.vcpus.value() == 2U);
    BOOST_TEST(settings->vm.boot_limit.count() == 7);
    BOOST_TEST(settings->vm.rootfs == "copy");
    BOOST_TEST(settings->vm.copy_mib == 5U);
    BOOST_TEST(settings->connect.paths.at("/h") == "/g");
    BOOST_TEST(settings->connect.device.path == "/dev/vdb");
    BOOST_TEST(settings->connect.device.type == "xfs");
    BOOST_TEST(settings->connect.device.options.size() == 2U);
    BOOST_TEST(settings->connect.binds == "copy");
    BOOST_TEST(settings->connect.copy_mib == 6U);
    BOOST_TEST(settings->connect.ignore.at(0) == "seccomp");
    BOOST_TEST(settings->allowed_annotations.size() == 1U);
}

BOOST_AUTO_TEST_CASE(what_is_wrong_is_refused_by_name) {
    const std::pair<const char*, const char*> cases[] = {
        {"[]", "not a JSON object"},
        {R"({"sandboxx":"vm"})", "sandboxx: no such member"},
        {R"({"vm":[]})", "vm: not an object"},
        {R"({"vm":{"kernal":"/k"}})", "vm.kernal: no such member"},
        {R"({"vm":{"kernel":"k"}})", "vm.kernel: not an absolute path"},
        {R"({"vm":{"memory_mib":1}})", "vm.memory_mib: not between 128 and 1048576"},
        {R"({"vm":{"vcpus":-1}})", "vm.vcpus: not a number in range"},
        {R"({"vm":{"accel":"hvf"}})", "vm.accel: not auto, tcg or kvm"},
        {R"({"vm":{"vsock":"none"}})", "vm.vsock: not auto, kernel or user"},
        {R"({"vm":{"rootfs":"disk"}})", "vm.rootfs: not share or copy"},
        {R"({"vm":{"copy_mib":0}})", "vm.copy_mib: not between 1 and 1048576"},
        {R"({"connect":{"rootfs":"share"}})", "connect.rootfs: not paths or copy"},
        {R"({"connect":{"rootfs":{"type":"ext4"}}})", "connect.rootfs.device: not there"},
        {R"({"connect":{"rootfs":{"device":"vdb"}}})",
         "connect.rootfs.device: not an absolute path"},
        {R"({"connect":{"rootfs":{"device":"/dev/vdb","x":1}}})",
         "connect.rootfs.x: no such member"},
        {R"({"connect":{"rootfs":{"device":"/dev/vdb","options":"ro"}}})",
         "connect.rootfs.options: not an array"},
        {R"({"connect":{"binds":"share"}})", "connect.binds: not paths or copy"},
        {R"({"connect":{"ignore":["everything"]}})", "connect.ignore: everything: no such feature"},
        {R"({"connect":{"paths":{"x":"/y"}}})", "connect.paths: not an absolute path"}};
    for (const auto& [text, message] : cases) {
        const auto settings = parseSettings(text);
        BOOST_TEST_REQUIRE(!settings.has_value(), text);
        BOOST_TEST(settings.error().message() == message);
    }
}

BOOST_AUTO_TEST_CASE(a_bundle_changes_only_what_the_host_allows) {
    Settings settings;
    const auto refused = applyAnnotations({{"io.arca.vm.kernel", "/evil"}}, settings);
    BOOST_TEST_REQUIRE(!refused.has_value());
    BOOST_TEST((refused.error().code() == Code::kPermissionDenied));
    BOOST_TEST(settings.vm.kernel.empty());
    settings.allowed_annotations = {"io.arca.vm.vcpus", "io.arca.sandbox"};
    BOOST_TEST(applyAnnotations({{"io.arca.vm.vcpus", "3"}, {"other", "x"}}, settings).has_value());
    BOOST_TEST(settings.vm.vcpus.value() == 3U);
    BOOST_TEST(!applyAnnotations({{"io.arca.vm.vcpus", "0"}}, settings).has_value());
    BOOST_TEST(applyAnnotations({{"io.arca.sandbox", "vm"}}, settings).has_value());
    BOOST_TEST(settings.sandbox == "vm");
}

BOOST_AUTO_TEST_CASE(a_monitors_configuration_survives_its_file) {
    MonitorConfig config;
    config.sandbox_id = "a\"b";
    config.kernel = "/k";
    config.memory_mib = 700;
    config.disks = {"ro:/x"};
    config.card = true;
    const auto parsed = parseMonitorConfig(writeMonitorConfig(config));
    BOOST_TEST_REQUIRE(parsed.has_value());
    BOOST_TEST(parsed->sandbox_id == config.sandbox_id);
    BOOST_TEST(parsed->memory_mib == 700U);
    BOOST_TEST(parsed->disks.size() == 1U);
    BOOST_TEST(parsed->card);
    BOOST_TEST(!parseMonitorConfig("{}").has_value());
}

BOOST_AUTO_TEST_CASE(a_vm_is_as_large_as_its_container_needs) {
    BOOST_TEST(guestMemoryMib(0) == 512U);
    BOOST_TEST(guestMemoryMib(-1) == 512U);
    BOOST_TEST(guestMemoryMib(64 << 20) == 256U);
    BOOST_TEST(guestMemoryMib((64 << 20) + 1) == 257U);
    BOOST_TEST(guestMemoryMib(INT64_MAX) == (1U << 20U) + 192U);
    BOOST_TEST(guestVcpus(0, 100000, 8) == 1U);
    BOOST_TEST(guestVcpus(150000, 100000, 8) == 2U);
    BOOST_TEST(guestVcpus(1000000, 100000, 8) == 8U);
    BOOST_TEST(guestVcpus(1, 0, 8) == 1U);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(guest_spec)

spec::Spec example() {
    spec::Spec config;
    config.root = spec::Root{"/bundle/rootfs", false};
    config.process.emplace();
    return config;
}

arca::base::Result<std::string> noNamespace(const std::string& path) {
    return arca::base::fail(Code::kUnsupported, "no " + path);
}

const Placements kShare{sharePlacement("c1"), sharePlacement("c1")};

BOOST_AUTO_TEST_CASE(host_paths_become_shares) {
    spec::Spec config = example();
    config.mounts.push_back({"/data", "bind", "/srv/data", {"rbind", "ro"}, {}, {}});
    config.mounts.push_back({"/proc", "proc", "proc", {}, {}, {}});
    config.mounts.push_back({"/file", "none", "/etc/hosts", {"bind"}, {}, {}});
    const auto guest = makeGuestSpec(config, "c1", kShare, noNamespace);
    BOOST_TEST_REQUIRE(guest.has_value());
    BOOST_TEST_REQUIRE(guest->shares.size() == 3U);
    BOOST_TEST(guest->shares[0].source == "/bundle/rootfs");
    BOOST_TEST(guest->shares[1].source == "/srv/data");
    BOOST_TEST(guest->shares[1].read_only);
    BOOST_TEST(!guest->shares[2].read_only);
    BOOST_TEST(!guest->shares[2].recursive);
    BOOST_TEST(guest->spec.root->path == "/run/container/c1/rootfs");
    BOOST_TEST(guest->spec.mounts[0].source == "/run/virtiofs/arca/c1/m1");
    BOOST_TEST(guest->spec.mounts[1].source == "proc");
    BOOST_TEST(guest->spec.linux.cgroupsPath == "/container/c1");
}

BOOST_AUTO_TEST_CASE(paths_of_a_foreign_guest_come_from_the_longest_prefix) {
    const Placement place =
        mappedPlacement({{"/srv", "/a"}, {"/srv/deep", "/b"}, {"/srv/other", "/c"}});
    const std::pair<const char*, const char*> cases[] = {
        {"/srv", "/a"},          {"/srv/x/y", "/a/x/y"},       {"/srv/deep", "/b"},
        {"/srv/deep/x", "/b/x"}, {"/srv/deeper", "/a/deeper"}, {"/srv/deep/../x", "/a/x"}};
    for (const auto& [host, guest] : cases) {
        const auto placed = place({"m1", host, false, true, {}});
        BOOST_TEST_REQUIRE(placed.has_value(), host);
        BOOST_TEST(*placed == guest);
    }
    BOOST_TEST((place({"m1", "/etc", false, true, {}}).error().code() == Code::kUnsupported));
    BOOST_TEST(mappedPlacement({{"/", "/host"}})({"m1", "/x", false, true, {}}).value() ==
               "/host/x");
}

using Way = GuestFiles::Way;

BOOST_AUTO_TEST_CASE(files_come_the_way_that_the_host_says) {
    const auto ways = [](const std::string& kind, const std::string& json) {
        const GuestFiles files = guestFilesOf(kind, parseSettings(json).value());
        return std::pair{files.rootfs, files.binds};
    };
    const auto same = [](Way way) { return std::pair{way, way}; };
    BOOST_TEST((ways("vm", "{}") == same(Way::kShare)));
    BOOST_TEST((ways("vm", R"({"vm":{"rootfs":"copy"}})") == same(Way::kCopy)));
    BOOST_TEST((ways("connect=x", "{}") == same(Way::kPaths)));
    BOOST_TEST((ways("connect=x", R"({"connect":{"rootfs":"copy"}})") == same(Way::kCopy)));
    BOOST_TEST((ways("connect=x", R"({"connect":{"rootfs":"copy","binds":"paths"}})") ==
                std::pair{Way::kCopy, Way::kPaths}));
    BOOST_TEST((ways("connect=x", R"({"connect":{"rootfs":{"device":"/d"}}})") ==
                std::pair{Way::kMount, Way::kPaths}));
    BOOST_TEST((ways("connect=x", R"({"connect":{"rootfs":{"device":"/d"},"binds":"copy"}})") ==
                std::pair{Way::kMount, Way::kCopy}));
    Settings image;
    image.vm.rootfs = "copy";
    image.vm.rootfs_image = "/image";
    BOOST_TEST((guestFilesOf("vm", image).rootfs == Way::kMount));
    BOOST_TEST((guestFilesOf("vm", image).binds == Way::kCopy));
}

BOOST_AUTO_TEST_CASE(copies_lie_in_the_containers_folder) {
    const Placement place = copyPlacement("c1");
    const auto placed = [&](const char* name, const char* source) {
        SharedPath path{name, source, false, true, {}};
        path.guest_path = place(path).value();
        return std::pair{path.guest_path, copyFolder(path)};
    };
    const std::string rootfs = "/run/container/c1/rootfs";
    const std::string copies = "/run/container/c1/copies/";
    // What becomes of the source of a root file system is found out when it is opened.
    BOOST_TEST((placed("rootfs", "/no/such") == std::pair{rootfs, rootfs}));
    BOOST_TEST((placed("m1", "/usr") == std::pair{copies + "m1", copies + "m1"}));
    BOOST_TEST((placed("m2", "/etc/passwd") == std::pair{copies + "m2/file", copies + "m2"}));
    BOOST_TEST((place({"m1", "/dev/null", false, true, {}}).error().code() == Code::kUnsupported));
    BOOST_TEST(place({"m1", "/no/such", false, true, {}}).error().sysErrno() == ENOENT);
}

BOOST_AUTO_TEST_CASE(a_machine_gets_memory_for_what_is_copied) {
    arca::runtime::ScratchDir scratch;
    const std::string file = scratch.path() + "/f";
    std::ofstream(file) << std::string(3 << 20, 'x');
    spec::Spec config = example();
    config.root->path = scratch.path();
    config.mounts.push_back({"/a", "bind", file, {"bind"}, {}, {}});
    config.mounts.push_back({"/b", "bind", "/no/such", {"bind"}, {}, {}});
    GuestFiles files{Way::kCopy, Way::kShare, {}, 100};
    BOOST_TEST(copyMemoryMib(files, config) == 5U);  // one and a half times, rounded up
    files.binds = Way::kCopy;
    BOOST_TEST(copyMemoryMib(files, config) == 10U);
    files.copy_mib = 2;
    BOOST_TEST(copyMemoryMib(files, config) == 3U);
}

BOOST_AUTO_TEST_CASE(the_network_namespace_is_the_stand_ins) {
    spec::Spec config = example();
    config.linux.namespaces = {{spec::NamespaceType::kNetwork, "/run/netns/x"},
                               {spec::NamespaceType::kPid, ""}};
    auto guest = makeGuestSpec(config, "c1", kShare, noNamespace);
    BOOST_TEST_REQUIRE(guest.has_value());
    BOOST_TEST(guest->network_namespace == "/run/netns/x");
    BOOST_TEST(guest->spec.linux.namespaces[0].path.empty());
    config.linux.namespaces[1].path = "/proc/1/ns/pid";
    guest = makeGuestSpec(config, "c1", kShare, noNamespace);
    BOOST_TEST_REQUIRE(!guest.has_value());
    BOOST_TEST(guest.error().message() == "no /proc/1/ns/pid");
}

BOOST_AUTO_TEST_CASE(what_a_guest_cannot_do_is_refused) {
    spec::Spec config = example();
    config.linux.intelRdt.emplace();
    BOOST_TEST(
        (makeGuestSpec(config, "c1", kShare, noNamespace).error().code() == Code::kUnsupported));
    config = example();
    config.linux.seccomp.emplace().listenerPath = "/x";
    BOOST_TEST(makeGuestSpec(config, "c1", kShare, noNamespace).has_value());
    config.linux.seccomp->syscalls.push_back({{"mkdir"}, "SCMP_ACT_NOTIFY", {}, {}});
    BOOST_TEST(
        (makeGuestSpec(config, "c1", kShare, noNamespace).error().code() == Code::kUnsupported));
}

BOOST_AUTO_TEST_CASE(only_paths_of_proc_ns_are_namespaces_of_processes) {
    long pid = 0;
    std::string kind;
    BOOST_TEST(parseNamespacePath("/proc/17/ns/ipc", pid, kind));
    BOOST_TEST(pid == 17);
    BOOST_TEST(kind == "ipc");
    for (const char* path :
         {"/proc/self/ns/ipc", "/proc/17/ns", "/proc/-1/ns/ipc", "/run/netns/x", ""}) {
        BOOST_TEST(!parseNamespacePath(path, pid, kind), path);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

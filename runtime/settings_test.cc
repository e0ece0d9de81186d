#include "runtime/settings.h"

#include <boost/test/unit_test.hpp>

#include "runtime/drivers/guest_spec.h"
#include "runtime/drivers/vm_config.h"
#include "runtime/monitor/config.h"

namespace {

using namespace arca::runtime;
namespace spec = arca::spec;
using arca::base::Code;

BOOST_AUTO_TEST_SUITE(settings)

BOOST_AUTO_TEST_CASE(every_member_is_read) {
    const auto settings = parseSettings(R"({"sandbox":"vm","vm":{"kernel":"/k","initrd":"/i",
        "qemu":"/q","virtiofsd":"/v","accel":"tcg","vsock":"user","append":"a b","memory_mib":300,"vcpus":2,
        "boot_seconds":7},"connect":{"paths":{"/h/":"/g"},"ignore":["seccomp"]},
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
    BOOST_TEST(settings->connect.paths.at("/h") == "/g");
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
    const auto parsed = parseMonitorConfig(writeMonitorConfig(config));
    BOOST_TEST_REQUIRE(parsed.has_value());
    BOOST_TEST(parsed->sandbox_id == config.sandbox_id);
    BOOST_TEST(parsed->memory_mib == 700U);
    BOOST_TEST(parsed->disks.size() == 1U);
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

BOOST_AUTO_TEST_CASE(host_paths_become_shares) {
    spec::Spec config = example();
    config.mounts.push_back({"/data", "bind", "/srv/data", {"rbind", "ro"}, {}, {}});
    config.mounts.push_back({"/proc", "proc", "proc", {}, {}, {}});
    config.mounts.push_back({"/file", "none", "/etc/hosts", {"bind"}, {}, {}});
    const auto guest = makeGuestSpec(config, "c1", sharePlacement("c1"), noNamespace);
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

BOOST_AUTO_TEST_CASE(the_network_namespace_is_the_stand_ins) {
    spec::Spec config = example();
    config.linux.namespaces = {{spec::NamespaceType::kNetwork, "/run/netns/x"},
                               {spec::NamespaceType::kPid, ""}};
    auto guest = makeGuestSpec(config, "c1", sharePlacement("c1"), noNamespace);
    BOOST_TEST_REQUIRE(guest.has_value());
    BOOST_TEST(guest->network_namespace == "/run/netns/x");
    BOOST_TEST(guest->spec.linux.namespaces[0].path.empty());
    config.linux.namespaces[1].path = "/proc/1/ns/pid";
    guest = makeGuestSpec(config, "c1", sharePlacement("c1"), noNamespace);
    BOOST_TEST_REQUIRE(!guest.has_value());
    BOOST_TEST(guest.error().message() == "no /proc/1/ns/pid");
}

BOOST_AUTO_TEST_CASE(what_a_guest_cannot_do_is_refused) {
    spec::Spec config = example();
    config.linux.intelRdt.emplace();
    BOOST_TEST((makeGuestSpec(config, "c1", sharePlacement("c1"), noNamespace).error().code() ==
                Code::kUnsupported));
    config = example();
    config.linux.seccomp.emplace().listenerPath = "/x";
    BOOST_TEST(makeGuestSpec(config, "c1", sharePlacement("c1"), noNamespace).has_value());
    config.linux.seccomp->syscalls.push_back({{"mkdir"}, "SCMP_ACT_NOTIFY", {}, {}});
    BOOST_TEST((makeGuestSpec(config, "c1", sharePlacement("c1"), noNamespace).error().code() ==
                Code::kUnsupported));
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

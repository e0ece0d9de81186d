#include <boost/test/unit_test.hpp>

#include "spec/sysctl.h"
#include "spec/test_config.h"

namespace arca::spec {
namespace {

Linux linuxOf(const std::string& patch) {
    return parsed(R"({"linux": )" + patch + "}").linux;
}

void checkLinuxRefusals(const std::vector<Refusal>& table) {
    for (const auto& [patch, message] : table) {
        BOOST_TEST_CONTEXT(patch) {
            BOOST_TEST(complaint(config(R"({"linux": )" + std::string(patch) + "}")) ==
                       "/linux" + std::string(message));
        }
    }
}

BOOST_AUTO_TEST_SUITE(parse_linux)

BOOST_AUTO_TEST_CASE(namespaces_are_known_and_given_once) {
    checkLinuxRefusals({
        {R"({"namespaces": [{"type": "pid"}, {"type": "foo"}]})",
         "/namespaces/1/type: foo is no namespace type"},
        {R"({"namespaces": [{"type": "pid"}, {"type": "uts"}, {"type": "pid", "path": "/x"}]})",
         "/namespaces/2/type: pid is given twice"},
        {R"({"namespaces": [{"type": "pid", "path": "x"}]})",
         "/namespaces/0/path: must be an absolute path, is x"},
        {R"({"namespaces": [{"path": "/x"}]})", "/namespaces/0/type: is required"},
        {R"({"namespaces": [{"type": ""}]})", "/namespaces/0/type: \"\" is no namespace type"},
        {R"({"namespaces": {}})", "/namespaces: must be an array, not an object"},
    });
    const Spec spec = parsed(R"({"linux": {"namespaces": [
        {"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}, {"type": "mount"},
        {"type": "ipc"}, {"type": "uts"}, {"type": "user"}, {"type": "cgroup"},
        {"type": "time", "path": null}]}})");
    BOOST_TEST(spec.linux.namespaces.size() == 8U);
    BOOST_TEST(spec.newNamespace(NamespaceType::kTime));
    BOOST_TEST(!spec.newNamespace(NamespaceType::kNetwork));
    BOOST_TEST(spec.linux.findNamespace(NamespaceType::kNetwork)->path == "/proc/1/ns/net");
}

BOOST_AUTO_TEST_CASE(mappings_need_a_user_namespace_and_fit) {
    checkLinuxRefusals({
        {R"({"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]})",
         "/uidMappings: needs a user namespace"},
        {R"({"gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]})",
         "/gidMappings: needs a user namespace"},
        {R"({"namespaces": [{"type": "user"}],
             "uidMappings": [{"containerID": 0, "hostID": 0, "size": 0}]})",
         "/uidMappings/0/size: must be at least 1"},
        {R"({"namespaces": [{"type": "user"}],
             "uidMappings": [{"containerID": 0, "hostID": 4294967295, "size": 2}]})",
         "/uidMappings/0/size: the range ends above 2^32-1"},
        {R"({"namespaces": [{"type": "user"}],
             "gidMappings": [{"containerID": 4294967295, "hostID": 0, "size": 2}]})",
         "/gidMappings/0/size: the range ends above 2^32-1"},
        {R"({"namespaces": [{"type": "user"}], "uidMappings": [{"containerID": 0, "hostID": 0}]})",
         "/uidMappings/0/size: is required"},
    });
    const Linux given = linuxOf(R"({"namespaces": [{"type": "user"}, {"type": "mount"}],
        "uidMappings": [{"containerID": 0, "hostID": 4294967295, "size": 1}]})");
    BOOST_TEST(given.uidMappings.at(0).hostID == 4294967295U);
}

BOOST_AUTO_TEST_CASE(time_offsets_need_a_time_namespace_of_ones_own) {
    checkLinuxRefusals({
        {R"({"timeOffsets": {"monotonic": {"secs": 1}}})", "/timeOffsets: needs a time namespace"},
        {R"({"namespaces": [{"type": "time", "path": "/x"}], "timeOffsets": {"boottime": {}}})",
         "/timeOffsets: cannot be set for a time namespace that is joined"},
        {R"({"namespaces": [{"type": "time"}], "timeOffsets": {"realtime": {}}})",
         "/timeOffsets/realtime: is no clock; monotonic and boottime are"},
        {R"({"namespaces": [{"type": "time"}],
             "timeOffsets": {"monotonic": {"nanosecs": 1000000000}}})",
         "/timeOffsets/monotonic/nanosecs: must be 0..999999999, is 1000000000"},
    });
    const Linux given = linuxOf(R"({"namespaces": [{"type": "time"}],
        "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": null}})");
    BOOST_TEST(given.timeOffsets.at("monotonic").secs == -5);
    BOOST_TEST(given.timeOffsets.size() == 1U);
}

BOOST_AUTO_TEST_CASE(sysctls_belong_to_a_namespace_of_the_container) {
    for (const char* key : {"net.ipv4.ip_forward", "net/ipv4/ip_forward",
                            "net/ipv4/conf/eth0.100/forwarding", "kernel.shmmax", "kernel/sem",
                            "fs.mqueue.msg_max", "kernel.domainname", "kernel.shm_rmid_forced"}) {
        BOOST_TEST(complaint(config(R"({"linux": {"sysctl": {")" + std::string(key) +
                                    R"(": "1"}}})")) == "",
                   key);
    }
    checkLinuxRefusals({
        {R"({"sysctl": {"vm.swappiness": "1"}})",
         "/sysctl/vm.swappiness: sysctl vm.swappiness is not in a separate kernel namespace"},
        {R"({"sysctl": {"user.max_user_namespaces": "1"}})",
         "/sysctl/user.max_user_namespaces: sysctl user.max_user_namespaces is not in a separate "
         "kernel namespace"},
        {R"({"namespaces": [{"type": "mount"}], "sysctl": {"net.core.somaxconn": "1"}})",
         "/sysctl/net.core.somaxconn: sysctl net.core.somaxconn is not in a separate kernel "
         "namespace"},
        {R"({"sysctl": {"kernel.hostname": "h"}})",
         "/sysctl/kernel.hostname: must be set by the property hostname"},
        {R"({"sysctl": {"netx.y": "1"}})",
         "/sysctl/netx.y: sysctl netx.y is not in a separate kernel namespace"},
        {R"({"sysctl": {"net/../kernel/core_pattern": "x"}})",
         "/sysctl/net~1..~1kernel~1core_pattern: net/../kernel/core_pattern is no sysctl key"},
        {R"({"sysctl": {"net.ipv4.ip_forward": 1}})",
         "/sysctl/net.ipv4.ip_forward: must be a string, not a number"},
    });
    // The agent decides about its own namespaces, but no key leads out of /proc/sys.
    BOOST_TEST(
        complaint(config(R"({"linux": {"sysctl": {"vm.swappiness": "1"}}})"), Source::kWire) == "");
    BOOST_TEST(complaint(config(R"({"linux": {"sysctl": {"a..b": "1"}}})"), Source::kWire) ==
               "/linux/sysctl/a..b: a..b is no sysctl key");
}

BOOST_AUTO_TEST_CASE(sysctl_keys_become_paths) {
    BOOST_TEST(sysctlPath("net.ipv4.ip_forward").value() == "net/ipv4/ip_forward");
    BOOST_TEST(sysctlPath("net/ipv4/conf/eth0.100/x").value() == "net/ipv4/conf/eth0.100/x");
    BOOST_TEST(sysctlPath("net.ipv4.conf.eth0/100.x").value() == "net/ipv4/conf/eth0.100/x");
    BOOST_TEST(sysctlPath("single").value() == "single");
    for (const char* key : {"", ".", "/", "..", "a.", ".a", "a..b", "a//b", "a/../b", "net/./x",
                            "../x", "/etc", "a.//.b", "a./.b"}) {
        BOOST_TEST(!sysctlPath(key).has_value(), key);
    }
}

BOOST_AUTO_TEST_CASE(devices_have_a_type_a_path_and_numbers) {
    checkLinuxRefusals({
        {R"({"devices": [{"path": "/dev/x", "major": 1, "minor": 2}]})",
         "/devices/0/type: is required"},
        {R"({"devices": [{"type": "x", "path": "/dev/x", "major": 1, "minor": 2}]})",
         "/devices/0/type: x is no device type; c, b, u and p are"},
        {R"({"devices": [{"type": "cb", "path": "/dev/x", "major": 1, "minor": 2}]})",
         "/devices/0/type: cb is no device type; c, b, u and p are"},
        {R"({"devices": [{"type": "c", "path": "x", "major": 1, "minor": 2}]})",
         "/devices/0/path: must be an absolute path, is x"},
        {R"({"devices": [{"type": "c", "major": 1, "minor": 2}]})", "/devices/0/path: is required"},
        {R"({"devices": [{"type": "c", "path": "/x", "minor": 2}]})",
         "/devices/0/major: is required"},
        {R"({"devices": [{"type": "u", "path": "/x", "major": 2}]})",
         "/devices/0/minor: is required"},
        {R"({"devices": [{"type": "b", "path": "/x", "major": 4096, "minor": 2}]})",
         "/devices/0/major: must be 0..4095, is 4096"},
        {R"({"devices": [{"type": "b", "path": "/x", "major": 1, "minor": -1}]})",
         "/devices/0/minor: must be 0..1048575, is -1"},
        {R"({"devices": [{"type": "c", "path": "/x", "major": 1, "minor": 2, "fileMode": 32768}]})",
         "/devices/0/fileMode: 32768 has more than permission bits"},
        {R"({"devices": [{"type": "c", "path": "/x", "major": 1, "minor": 2, "fileMode": 24576}]})",
         "/devices/0/fileMode: 24576 has more than permission bits"},
        {R"({"devices": [{"type": "c", "path": "/x", "major": 1, "minor": 2, "uid": 4294967295}]})",
         "/devices/0/uid: must be below 2^32-1"},
    });
    const Linux given = linuxOf(R"({"devices": [
        {"type": "p", "path": "/fifo"},
        {"type": "c", "path": "/c", "major": 10, "minor": 229, "fileMode": 8630, "gid": 5},
        {"type": "b", "path": "/b", "major": 8, "minor": 0, "fileMode": 3583}]})");
    BOOST_TEST(given.devices.at(0).type == 'p');
    BOOST_TEST(!given.devices[0].fileMode.has_value());
    BOOST_TEST(given.devices.at(1).fileMode.value() == 0666U);  // S_IFCHR taken off
    BOOST_TEST(given.devices[1].gid == 5U);
    BOOST_TEST(given.devices.at(2).fileMode.value() == 06777U);
}

BOOST_AUTO_TEST_CASE(network_devices_have_kernel_names) {
    checkLinuxRefusals({
        {R"({"netDevices": {"0123456789abcdef": {}}})",
         "/netDevices/0123456789abcdef: 0123456789abcdef is no network interface name"},
        {R"({"netDevices": {"eth0": {"name": "a b"}}})",
         "/netDevices/eth0/name: a b is no network interface name"},
        {R"({"netDevices": {"a/b": {}}})", "/netDevices/a~1b: a/b is no network interface name"},
        {R"({"netDevices": {"..": {}}})", "/netDevices/..: .. is no network interface name"},
        {R"({"netDevices": {"a:1": {}}})", "/netDevices/a:1: a:1 is no network interface name"},
        {R"({"netDevices": {"": {}}})", "/netDevices/: a name must not be empty"},
        {R"({"namespaces": [], "netDevices": {"eth0": {}}})",
         "/netDevices: needs a network namespace"},
    });
    const Linux given = linuxOf(R"({"netDevices": {"eth0": {"name": "eth%d"}, "eth1": {}}})");
    BOOST_TEST(given.netDevices.at("eth0").name == "eth%d");
    BOOST_TEST(given.netDevices.at("eth1").name.empty());
}

BOOST_AUTO_TEST_CASE(masked_and_readonly_paths_are_absolute_and_need_a_mount_namespace) {
    checkLinuxRefusals({
        {R"({"maskedPaths": ["/a", "b"]})", "/maskedPaths/1: must be an absolute path, is b"},
        {R"({"readonlyPaths": [""]})", "/readonlyPaths/0: must be an absolute path, is \"\""},
        {R"({"namespaces": [], "maskedPaths": ["/a"]})", "/maskedPaths: needs a mount namespace"},
        {R"({"namespaces": null, "readonlyPaths": ["/a"]})",
         "/readonlyPaths: needs a mount namespace"},
    });
    BOOST_TEST(linuxOf(R"({"maskedPaths": ["/a"]})").maskedPaths.size() == 1U);
}

BOOST_AUTO_TEST_CASE(propagation_is_one_of_eight_words) {
    for (const char* word : {"shared", "slave", "private", "unbindable", "rshared", "rslave",
                             "rprivate", "runbindable", ""}) {
        BOOST_TEST(
            linuxOf(R"({"rootfsPropagation": ")" + std::string(word) + R"("})").rootfsPropagation ==
            word);
    }
    checkLinuxRefusals({{R"({"rootfsPropagation": "rshard"})",
                         "/rootfsPropagation: rshard is no mount propagation"}});
}

BOOST_AUTO_TEST_CASE(personality_has_two_domains_and_no_flags) {
    checkLinuxRefusals({
        {R"({"personality": {}})", "/personality/domain: is required"},
        {R"({"personality": {"domain": "LINUX64"}})",
         "/personality/domain: LINUX64 is no execution domain"},
        {R"({"personality": {"domain": "LINUX", "flags": ["X"]}})",
         "/personality/flags: no flag is defined"},
    });
    BOOST_TEST(
        linuxOf(R"({"personality": {"domain": "LINUX32", "flags": []}})").personality->domain ==
        "LINUX32");
}

BOOST_AUTO_TEST_CASE(intel_rdt_names_one_directory_and_single_lines) {
    checkLinuxRefusals({
        {R"({"intelRdt": {"closID": "a/b"}})", "/intelRdt/closID: a/b is no directory name"},
        {R"({"intelRdt": {"closID": ".."}})", "/intelRdt/closID: .. is no directory name"},
        {R"({"intelRdt": {"closID": "a\nb"}})", R"(/intelRdt/closID: a\x0ab is no directory name)"},
        {R"({"intelRdt": {"closID": ")" + std::string(256, 'x') + "\"}}",
         "/intelRdt/closID: " + std::string(64, 'x') + "... is no directory name"},
        {R"({"intelRdt": {"memBwSchema": "MB:0=5\nMB:1=5"}})",
         "/intelRdt/memBwSchema: must be one line"},
        {R"({"intelRdt": {"schemata": ["L3:0=f", "a\nb"]}})",
         "/intelRdt/schemata/1: must be one line"},
    });
    const Linux given = linuxOf(R"({"intelRdt": {"closID": "/", "l3CacheSchema": "",
        "memBwSchema": "MB:0=20", "enableMonitoring": true}})");
    BOOST_TEST(given.intelRdt->closID.value() == "/");
    BOOST_TEST(!given.intelRdt->l3CacheSchema.has_value());
    BOOST_TEST(given.intelRdt->memBwSchema.value() == "MB:0=20");
    BOOST_TEST(given.intelRdt->enableMonitoring);
}

BOOST_AUTO_TEST_CASE(memory_policies_take_the_nodes_of_their_mode) {
    checkLinuxRefusals({
        {R"({"memoryPolicy": {}})", "/memoryPolicy/mode: is required"},
        {R"({"memoryPolicy": {"mode": "MPOL_X"}})",
         "/memoryPolicy/mode: MPOL_X is no memory policy"},
        {R"({"memoryPolicy": {"mode": "MPOL_BIND"}})",
         "/memoryPolicy/nodes: is required with MPOL_BIND"},
        {R"({"memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0"}})",
         "/memoryPolicy/nodes: must be empty with MPOL_LOCAL"},
        {R"({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-"}})",
         "/memoryPolicy/nodes: 0- is no list of numbers and ranges up to 1023"},
        {R"({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}})",
         "/memoryPolicy/flags/0: X is no memory policy flag"},
        {R"({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0",
             "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}})",
         "/memoryPolicy/flags: MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other"},
        {R"({"memoryPolicy": {"mode": "MPOL_DEFAULT", "flags": ["MPOL_F_STATIC_NODES"]}})",
         "/memoryPolicy/flags: must be empty with MPOL_DEFAULT"},
    });
    const Linux given = linuxOf(R"({"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0-1,3",
        "flags": ["MPOL_F_STATIC_NODES"]}})");
    BOOST_TEST(given.memoryPolicy->nodes == "0-1,3");
    BOOST_TEST(
        linuxOf(R"({"memoryPolicy": {"mode": "MPOL_PREFERRED"}})").memoryPolicy->nodes.empty());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::spec

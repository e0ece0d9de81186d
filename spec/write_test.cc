#include "spec/write.h"

#include <boost/test/unit_test.hpp>

#include "spec/features.h"
#include "spec/plan.h"
#include "spec/state.h"
#include "spec/test_config.h"
#include "spec/version.h"

namespace arca::spec {
namespace {

using nlohmann::json;

// Every property that the structs have, in the order and with the values that writeSpec() uses.
constexpr char kEverything[] = R"({
"ociVersion": "1.2.0",
"process": {
  "terminal": true, "consoleSize": {"height": 24, "width": 80},
  "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4], "username": "u:g"},
  "args": ["sh", "-c", "echo \"\u00e9\\\n\t\u0001\""], "env": ["A=1"], "cwd": "/w",
  "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"],
                   "permitted": ["CAP_KILL"], "ambient": ["CAP_BPF"]},
  "rlimits": [{"type": "RLIMIT_CORE", "hard": 18446744073709551615, "soft": 0}],
  "noNewPrivileges": true, "apparmorProfile": "p", "selinuxLabel": "l", "oomScoreAdj": -5,
  "scheduler": {"policy": "SCHED_DEADLINE", "nice": -1, "flags": ["SCHED_FLAG_RECLAIM"],
                "runtime": 2000, "deadline": 3000, "period": 4000},
  "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
  "execCPUAffinity": {"initial": "0", "final": "1-2"}},
"root": {"path": "rootfs", "readonly": true},
"hostname": "h", "domainname": "d",
"mounts": [
  {"destination": "/m", "type": "t", "source": "s", "options": ["ro", "idmap"],
   "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
   "gidMappings": [{"containerID": 3, "hostID": 4, "size": 5}]},
  {"destination": "/n"}],
"hooks": {
  "prestart": [{"path": "/h", "args": ["h"], "env": ["B=2"], "timeout": 9}],
  "createRuntime": [{"path": "/1", "env": []}], "createContainer": [{"path": "/2"}],
  "startContainer": [{"path": "/3"}], "poststart": [{"path": "/4"}], "poststop": [{"path": "/5"}]},
"annotations": {"a.b": "c", "d": ""},
"linux": {
  "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
  "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
  "sysctl": {"net.ipv4.ip_forward": "1"},
  "resources": {
    "devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}],
    "memory": {"limit": 1, "reservation": 2, "swap": -1, "kernel": 4, "kernelTCP": 5,
               "swappiness": 6, "disableOOMKiller": false, "useHierarchy": true,
               "checkBeforeUpdate": true},
    "cpu": {"shares": 1, "quota": 2000, "burst": 3, "period": 4000, "realtimeRuntime": 5,
            "realtimePeriod": 6, "cpus": "0", "mems": "0", "idle": 0},
    "pids": {"limit": -1},
    "blockIO": {"weight": 10, "leafWeight": 11,
      "weightDevice": [{"major": 1, "minor": 2, "weight": 30, "leafWeight": 40}],
      "throttleReadBpsDevice": [{"major": 1, "minor": 2, "rate": 3}],
      "throttleWriteBpsDevice": [{"major": 1, "minor": 2, "rate": 4}],
      "throttleReadIOPSDevice": [{"major": 1, "minor": 2, "rate": 5}],
      "throttleWriteIOPSDevice": [{"major": 1, "minor": 2, "rate": 6}]},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 7}],
    "network": {"classID": 8, "priorities": [{"name": "lo", "priority": 9}]},
    "rdma": {"mlx": {"hcaHandles": 1, "hcaObjects": 2}},
    "unified": {"memory.high": "max"}},
  "cgroupsPath": "/c",
  "namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}, {"type": "mount"},
                 {"type": "ipc"}, {"type": "uts"}, {"type": "user"}, {"type": "cgroup"},
                 {"type": "time"}],
  "devices": [{"type": "c", "path": "/d", "major": 1, "minor": 0, "fileMode": 0, "uid": 1, "gid": 2},
              {"type": "p", "path": "/p"}],
  "netDevices": {"eth0": {"name": "e"}, "eth1": {}},
  "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 0,
    "architectures": ["SCMP_ARCH_X86_64"], "flags": [], "listenerPath": "/l",
    "listenerMetadata": "m",
    "syscalls": [{"names": ["a", "b"], "action": "SCMP_ACT_TRACE", "errnoRet": 1,
      "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"},
               {"index": 1, "value": 0, "op": "SCMP_CMP_NE"}]}]},
  "rootfsPropagation": "rslave", "maskedPaths": ["/a"], "readonlyPaths": ["/b"],
  "mountLabel": "ml",
  "intelRdt": {"closID": "c", "l3CacheSchema": "x", "memBwSchema": "y", "schemata": ["z"],
               "enableCMT": true, "enableMBM": true, "enableMonitoring": true},
  "personality": {"domain": "LINUX32"},
  "timeOffsets": {"boottime": {"secs": -1, "nanosecs": 2}, "monotonic": {}},
  "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}},
"vm": {
  "hypervisor": {"path": "/h", "parameters": ["a"]},
  "kernel": {"path": "/k", "parameters": ["b"], "initrd": "/i"},
  "image": {"path": "/m", "format": "raw"},
  "hwConfig": {"deviceTree": "/t", "vcpus": 0, "memory": 1, "dtdevs": ["d"],
               "iomems": [{"firstGFN": 0, "firstMFN": 1, "nrMFNs": 2}, {"firstMFN": 3, "nrMFNs": 4}],
               "irqs": [5]}}
})";

BOOST_AUTO_TEST_SUITE(write)

// The text above is compared as a whole: a property that the parser or the writer forgets shows up.
BOOST_AUTO_TEST_CASE(every_property_survives) {
    const auto spec = parseSpec(kEverything, Source::kWire);
    BOOST_TEST_REQUIRE(spec.has_value(), (spec ? "" : spec.error().message()));
    const std::string text = writeSpec(*spec);
    BOOST_TEST(json::parse(text) == json::parse(kEverything));
    BOOST_TEST(text.find('\n') == std::string::npos);
    const auto again = parseSpec(text, Source::kWire);
    BOOST_TEST_REQUIRE(again.has_value(), (again ? "" : again.error().message()));
    BOOST_TEST(writeSpec(*again) == text);
}

BOOST_AUTO_TEST_CASE(the_smallest_one_stays_small) {
    BOOST_TEST(writeSpec(parsed(R"({"process": null, "linux": null})")) ==
               R"({"ociVersion":"1.2.0","root":{"path":"rootfs"}})");
    BOOST_TEST(writeSpec(parsed(R"({"process": null, "linux": {"namespaces": null}})")) ==
               R"({"ociVersion":"1.2.0","root":{"path":"rootfs"},"linux":{}})");
    // Present and empty is not the same as absent.
    const std::string text = writeSpec(parsed(R"({"process": {"capabilities": {}},
        "linux": {"resources": {"memory": {}}}})"));
    BOOST_TEST(text.find(R"("capabilities":{})") != std::string::npos);
    BOOST_TEST(text.find(R"("memory":{})") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_process_is_read_back) {
    const Process process =
        *parsed(R"({"process": {"env": ["A=\"b\""], "terminal": true}})").process;
    const std::string text = writeProcess(process);
    const auto again = parseProcess(text, Source::kBundle);
    BOOST_TEST_REQUIRE(again.has_value());
    BOOST_TEST(writeProcess(*again) == text);
    BOOST_TEST(again->env.at(0) == "A=\"b\"");
}

BOOST_AUTO_TEST_CASE(arguments_that_are_no_text_survive) {
    Process process = *parsed().process;
    process.args = {"a\xff\xc3", "\x7f"};
    const auto again = parseProcess(writeProcess(process), Source::kWire);
    BOOST_TEST_REQUIRE(again.has_value());
    BOOST_TEST((again->args == process.args));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(template_config)

BOOST_AUTO_TEST_CASE(is_valid_and_indented_with_tabs) {
    for (const bool rootless : {false, true}) {
        for (const bool cgroup2 : {false, true}) {
            const std::string text = templateConfig({rootless, cgroup2, 1000, 1001});
            BOOST_TEST(complaint(text) == "");
            BOOST_TEST(text.starts_with("{\n\t\"ociVersion\": "));
            BOOST_TEST(text.ends_with("\n}\n"));
        }
    }
}

BOOST_AUTO_TEST_CASE(holds_what_scripts_expect) {
    const json text = json::parse(templateConfig({}));
    BOOST_TEST(text["process"]["args"] == json::parse(R"(["sh"])"));
    BOOST_TEST(text["process"]["terminal"] == true);
    BOOST_TEST(text["root"] == json::parse(R"({"path": "rootfs", "readonly": true})"));
    BOOST_TEST(text["mounts"].size() == 7U);
    BOOST_TEST(text["linux"]["namespaces"].size() == 5U);
    BOOST_TEST(text["linux"]["resources"]["devices"].size() == 1U);
    BOOST_TEST(json::parse(templateConfig({false, true, 0, 0}))["linux"]["namespaces"].size() ==
               6U);
}

BOOST_AUTO_TEST_CASE(rootless_maps_the_caller_and_has_no_resources) {
    const auto spec = parseSpec(templateConfig({true, true, 1000, 1001}), Source::kBundle);
    BOOST_TEST_REQUIRE(spec.has_value());
    BOOST_TEST(spec->newNamespace(NamespaceType::kUser));
    BOOST_TEST(spec->linux.findNamespace(NamespaceType::kNetwork) == nullptr);
    BOOST_TEST(!spec->linux.resources.has_value());
    BOOST_TEST(spec->linux.uidMappings.at(0).hostID == 1000U);
    BOOST_TEST(spec->linux.gidMappings.at(0).hostID == 1001U);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(state)

BOOST_AUTO_TEST_CASE(is_one_line_and_leaves_out_what_is_not_known) {
    State state{"1.2.1", "c", "created", 7, "/b", {{"k", "v"}}};
    BOOST_TEST(writeState(state) ==
               R"({"ociVersion":"1.2.1","id":"c","status":"created","pid":7,"bundle":"/b",)"
               R"("annotations":{"k":"v"}})");
    state.pid = 0;
    state.annotations.clear();
    BOOST_TEST(writeState(state) ==
               R"({"ociVersion":"1.2.1","id":"c","status":"created","bundle":"/b"})");
}

BOOST_AUTO_TEST_CASE(is_valid_json_whatever_the_bundle_is_called) {
    const State state{"1.2.1", "c", "stopped", 0, "/b\xff\"\n", {}};
    BOOST_TEST(json::accept(writeState(state)));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(version)

BOOST_AUTO_TEST_CASE(major_and_minor_decide) {
    for (const char* later : {"1.3.0", "1.3.0-rc.1", "1.3.0+dev", "1.10.0", "2.0.0"}) {
        BOOST_TEST(versionAtLeast(later, 1, 3), later);
    }
    for (const char* earlier : {"1.0.0", "1.0.2-dev", "1.2.1", "1.2.99", "0.9.0", "", "1", "x.y"}) {
        BOOST_TEST(!versionAtLeast(earlier, 1, 3), earlier);
    }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(features)

BOOST_AUTO_TEST_CASE(are_indented_json_with_what_callers_look_for) {
    const std::string text = featuresJson();
    BOOST_TEST(text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n"));
    BOOST_TEST(text.ends_with("}\n"));
    const json features = json::parse(text);
    BOOST_TEST(features["ociVersionMax"] == kOciVersionMax);
    BOOST_TEST(features["hooks"].size() == 6U);
    BOOST_TEST(features["linux"]["namespaces"].size() == 8U);
    BOOST_TEST(features["linux"]["capabilities"].size() == 41U);
    BOOST_TEST(features["linux"]["mountExtensions"]["idmap"]["enabled"] == true);
    BOOST_TEST(features["linux"]["seccomp"]["actions"].size() == 9U);
    BOOST_TEST(features["linux"]["seccomp"]["operators"].size() == 7U);
    BOOST_TEST(features["annotations"].contains("io.github.seccomp.libseccomp.version"));
    for (const char* option :
         {"rro", "ridmap", "tmpcopyup", "nosymfollow", "rprivate", "lazytime"}) {
        const json& all = features["mountOptions"];
        BOOST_TEST((std::find(all.begin(), all.end(), option) != all.end()), option);
    }
}

BOOST_AUTO_TEST_CASE(list_nothing_newer_than_the_maximum_version) {
    const json features = json::parse(featuresJson());
    const bool has_1_3 = versionAtLeast(kOciVersionMax, 1, 3);
    BOOST_TEST(features["linux"].contains("netDevices") == has_1_3);
    BOOST_TEST(features["linux"].contains("memoryPolicy") == has_1_3);
}

BOOST_AUTO_TEST_CASE(everything_listed_is_accepted) {
    const json features = json::parse(featuresJson());
    for (const json& action : features["linux"]["seccomp"]["actions"]) {
        if (action == "SCMP_ACT_NOTIFY") continue;  // not as a default
        json patch;
        patch["linux"]["seccomp"]["defaultAction"] = action;
        patch["linux"]["seccomp"]["architectures"] = features["linux"]["seccomp"]["archs"];
        patch["linux"]["seccomp"]["flags"] = features["linux"]["seccomp"]["supportedFlags"];
        BOOST_TEST(complaint(config(patch.dump())) == "");
    }
    json patch;
    for (const json& type : features["linux"]["namespaces"]) {
        patch["linux"]["namespaces"].push_back({{"type", type}});
    }
    BOOST_TEST(complaint(config(patch.dump())) == "");
}

BOOST_AUTO_TEST_CASE(every_memory_policy_listed_is_accepted_and_no_other) {
    const json features = json::parse(featuresJson());
    json patch;
    json& policy = patch["linux"]["memoryPolicy"];
    for (const json& mode : features["linux"]["memoryPolicy"]["modes"]) {
        policy = {{"mode", mode}};
        if (mode != "MPOL_DEFAULT" && mode != "MPOL_LOCAL") policy["nodes"] = "0";
        BOOST_TEST(complaint(config(patch.dump())) == "");
    }
    policy = {{"mode", "MPOL_BIND"}, {"nodes", "0"}};
    for (const json& flag : features["linux"]["memoryPolicy"]["flags"]) {
        policy["flags"] = json::array({flag});
        BOOST_TEST(complaint(config(patch.dump())) == "");
    }
    policy["flags"] = json::array({"MPOL_F_OTHER"});
    BOOST_TEST(complaint(config(patch.dump())) != "");
}

BOOST_AUTO_TEST_CASE(mount_options_are_sorted_and_given_once) {
    const auto& names = mountOptionNames();
    BOOST_TEST(std::is_sorted(names.begin(), names.end()));
    BOOST_TEST((std::adjacent_find(names.begin(), names.end()) == names.end()));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(plan)

Plan fullPlan() {
    Plan plan;
    plan.kind = PlanKind::kExec;
    plan.container_id = "c";
    plan.bundle = "/b";
    plan.spec = *parseSpec(kEverything, Source::kWire);
    plan.no_pivot = plan.no_new_keyring = plan.wait_for_hooks = true;
    plan.preserve_fds = 3;
    plan.init_pid = 7;
    plan.init_start_time_ticks = UINT64_MAX;
    plan.seccomp_flags = 5;
    plan.seccomp_notify = plan.unified_cgroup = true;
    plan.cgroup_paths = {"/sys/fs/cgroup/a", "/b"};
    return plan;
}

BOOST_AUTO_TEST_CASE(every_member_survives) {
    Plan plan = fullPlan();
    for (int i = 0; i < 256; ++i) plan.seccomp_program += static_cast<char>(i);
    const std::string text = writePlan(plan);
    const auto again = parsePlan(text);
    BOOST_TEST_REQUIRE(again.has_value(), (again ? "" : again.error().message()));
    BOOST_TEST(writePlan(*again) == text);
    BOOST_TEST((again->kind == PlanKind::kExec));
    BOOST_TEST(again->container_id == "c");
    BOOST_TEST((again->no_pivot && again->no_new_keyring && again->wait_for_hooks));
    BOOST_TEST(again->preserve_fds == 3);
    BOOST_TEST(again->init_pid == 7);
    BOOST_TEST(again->init_start_time_ticks == UINT64_MAX);
    BOOST_TEST((again->seccomp_program == plan.seccomp_program));
    BOOST_TEST(again->seccomp_flags == 5U);
    BOOST_TEST((again->seccomp_notify && again->unified_cgroup));
    BOOST_TEST((again->cgroup_paths == plan.cgroup_paths));
    BOOST_TEST(writeSpec(again->spec) == writeSpec(plan.spec));
}

BOOST_AUTO_TEST_CASE(programs_of_any_length_survive) {
    Plan plan;
    plan.container_id = "c";
    plan.spec = parsed();
    for (size_t size = 0; size < 10; ++size) {
        plan.seccomp_program = std::string(size, '\xfb');
        const auto again = parsePlan(writePlan(plan));
        BOOST_TEST_REQUIRE(again.has_value());
        BOOST_TEST((again->seccomp_program == plan.seccomp_program), size);
    }
}

BOOST_AUTO_TEST_CASE(what_is_no_plan_is_refused) {
    const std::string spec = R"("spec": {"root": {"path": "r"}})";
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"{}", "/kind: is required"},
        {R"({"kind": "x"})", "/kind: x is no kind of plan"},
        {R"({"kind": "init"})", "/containerId: is required"},
        {R"({"kind": "init", "containerId": "c"})", "/spec: is required"},
        {R"({"kind": "init", "containerId": "c", "spec": {}})", "/spec/root: is required"},
        {R"({"kind": "init", "containerId": "c", "seccompProgram": "AA=", )" + spec + "}",
         "/seccompProgram: is no base64"},
        {R"({"kind": "init", "containerId": "c", "seccompProgram": "A*==", )" + spec + "}",
         "/seccompProgram: is no base64"},
        {R"({"kind": "init", "containerId": "c", "preserveFds": -1, )" + spec + "}",
         "/preserveFds: must be at least 0, is -1"},
    };
    for (const auto& [text, message] : cases) {
        const auto result = parsePlan(text);
        BOOST_TEST_REQUIRE(!result.has_value(), text);
        BOOST_TEST(result.error().message() == message);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::spec

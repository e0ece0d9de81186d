#include "spec/parse.h"

#include <boost/test/unit_test.hpp>

#include "spec/test_config.h"
#include "spec/write.h"

namespace arca::spec {
namespace {

BOOST_AUTO_TEST_SUITE(parse)

BOOST_AUTO_TEST_CASE(unknown_properties_are_ignored_everywhere) {
    const std::string text = config(R"({"unknown": [1.5], "process": {"unknown": "\u0000"},
        "linux": {"unknown": {"a": null}, "resources": {"unknown": 1}}, "windows": {}})");
    BOOST_TEST(complaint(text) == "");
}

BOOST_AUTO_TEST_CASE(the_document_must_be_an_object) {
    for (const char* text : {"[]", "null", "1", "\"x\"", "true"}) {
        BOOST_TEST(complaint(text).starts_with("the document must be an object, not "), text);
        BOOST_TEST(!parseProcess(text, Source::kBundle).has_value());
        BOOST_TEST(!parseResources(text).has_value());
    }
}

BOOST_AUTO_TEST_CASE(broken_json_is_told_by_its_place) {
    BOOST_TEST(complaint("{\"ociVersion\": ") ==
               "invalid JSON at byte 15: expected a value, found the end");
}

BOOST_AUTO_TEST_CASE(versions_are_semantic_and_of_major_one) {
    for (const char* version : {"1.0.0", "1.0.2-dev", "1.2.1+dev", "1.3.0-rc.1+x-1", "1.99.0"}) {
        BOOST_TEST(complaint(config(R"({"ociVersion": ")" + std::string(version) + "\"}")) == "",
                   version);
    }
    for (const char* version : {"1", "1.0", "1.0.0.0", "1.0.x", "v1.0.0", "1.0.0-", "1.0.0+",
                                "01.0.0", "1.00.0", "1.0.0-a..b", "1.0.0-_", " 1.0.0", "1..0"}) {
        BOOST_TEST(complaint(config(R"({"ociVersion": ")" + std::string(version) + "\"}")) ==
                       "/ociVersion: " + std::string(version) + " is no semantic version",
                   version);
    }
    checkRefusals({
        {R"({"ociVersion": "2.0.0"})", "/ociVersion: 2.0.0 is not supported; 1.x.y is"},
        {R"({"ociVersion": "0.9.0"})", "/ociVersion: 0.9.0 is not supported; 1.x.y is"},
        {R"({"ociVersion": "10.0.0"})", "/ociVersion: 10.0.0 is not supported; 1.x.y is"},
        {R"({"ociVersion": ""})", "/ociVersion: is required"},
        {R"({"ociVersion": null})", "/ociVersion: is required"},
        {R"({"ociVersion": 1})", "/ociVersion: must be a string, not a number"},
    });
}

BOOST_AUTO_TEST_CASE(root_is_required_and_has_a_path) {
    checkRefusals({
        {R"({"root": null})", "/root: is required"},
        {R"({"root": "x"})", "/root: must be an object, not a string"},
        {R"({"root": {"path": null}})", "/root/path: is required"},
        {R"({"root": {"path": ""}})", "/root/path: must not be empty"},
        {R"({"root": {"path": "a\u0000b"}})", "/root/path: must not contain a NUL byte"},
        {R"({"root": {"readonly": "yes"}})", "/root/readonly: must be a boolean, not a string"},
    });
    const Spec spec = parsed(R"({"root": {"path": "/a", "readonly": true}})");
    BOOST_TEST_REQUIRE(spec.root.has_value());
    BOOST_TEST(spec.root->path == "/a");
    BOOST_TEST(spec.root->readonly);
}

BOOST_AUTO_TEST_CASE(process_and_linux_may_be_absent) {
    const Spec spec = parsed(R"({"process": null, "linux": null})");
    BOOST_TEST(!spec.process.has_value());
    BOOST_TEST(!spec.has_linux);
    BOOST_TEST(parsed(R"({"linux": {"namespaces": null}})").has_linux);
}

BOOST_AUTO_TEST_CASE(host_and_domain_name_need_a_uts_namespace) {
    checkRefusals({
        {R"({"hostname": "h", "linux": {"namespaces": []}})", "/hostname: needs a UTS namespace"},
        {R"({"domainname": "d", "linux": null})", "/domainname: needs a UTS namespace"},
        {R"({"hostname": "0123456789012345678901234567890123456789012345678901234567890123x"})",
         "/hostname: must have at most 64 bytes"},
    });
    BOOST_TEST(parsed(R"({"hostname": "h", "domainname": "d"})").domainname == "d");
    // On the wire the list of namespaces may be left out.
    const std::string wire = config(R"({"hostname": "h", "linux": {"namespaces": null}})");
    BOOST_TEST(complaint(wire, Source::kWire) == "");
}

BOOST_AUTO_TEST_CASE(annotations_are_strings_with_names) {
    checkRefusals({
        {R"({"annotations": {"": "x"}})", "/annotations/: a name must not be empty"},
        {R"({"annotations": {"a": 1}})", "/annotations/a: must be a string, not a number"},
        {R"({"annotations": []})", "/annotations: must be an object, not an array"},
    });
    BOOST_TEST(parsed(R"({"annotations": {"a": ""}})").annotations.at("a").empty());
    const auto repeated =
        parseSpec(R"({"ociVersion":"1.0.0","root":{"path":"r"},"annotations":{"a":"1","a":"2"}})",
                  Source::kBundle);
    BOOST_TEST_REQUIRE(repeated.has_value());
    BOOST_TEST(repeated->annotations.at("a") == "2");
}

BOOST_AUTO_TEST_CASE(mounts_need_a_destination) {
    checkRefusals({
        {R"({"mounts": [{"source": "x"}]})", "/mounts/0/destination: is required"},
        {R"({"mounts": [{"destination": ""}]})", "/mounts/0/destination: must not be empty"},
        {R"({"mounts": [{"destination": "/a"}, {"destination": "/b", "options": ["a", 1]}]})",
         "/mounts/1/options/1: must be a string, not a number"},
        {R"({"mounts": [{"destination": "/a", "options": [null]}]})",
         "/mounts/0/options/0: must be a string, not null"},
        {R"({"mounts": {}})", "/mounts: must be an array, not an object"},
        {R"({"mounts": [1]})", "/mounts/0: must be an object, not a number"},
        {R"({"mounts": [{"destination": "/a", "uidMappings":
            [{"containerID": 0, "hostID": 0, "size": 1}]}]})",
         "/mounts/0: must have both of uidMappings and gidMappings, or neither"},
        {R"({"mounts": [{"destination": "/a", "options": ["rbind", "ridmap"]}]})",
         "/mounts/0: option ridmap needs mappings or a user namespace"},
    });
    const Spec spec = parsed(R"({"mounts": [{"destination": "/a", "options": ["bind", "idmap"],
        "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 6, "size": 2}]}]})");
    BOOST_TEST_REQUIRE(spec.mounts.size() == 1U);
    BOOST_TEST(spec.mounts[0].gidMappings.at(0).hostID == 6U);
}

BOOST_AUTO_TEST_CASE(relative_destinations_are_taken_from_the_root_with_a_warning) {
    Warnings warnings;
    const auto spec =
        parseSpec(config(R"({"mounts": [{"destination": "/a"}, {"destination": "b"}]})"),
                  Source::kBundle, &warnings);
    BOOST_TEST_REQUIRE(spec.has_value());
    BOOST_TEST(spec->mounts[1].destination == "/b");
    BOOST_TEST_REQUIRE(warnings.size() == 1U);
    BOOST_TEST(warnings[0] ==
               "/mounts/1/destination: relative destinations are deprecated; taken from /");
}

BOOST_AUTO_TEST_CASE(hooks_have_absolute_paths_and_positive_timeouts) {
    checkRefusals({
        {R"({"hooks": {"prestart": [{"args": []}]}})", "/hooks/prestart/0/path: is required"},
        {R"({"hooks": {"createRuntime": [{"path": "x"}]}})",
         "/hooks/createRuntime/0/path: must be an absolute path, is x"},
        {R"({"hooks": {"createContainer": [{"path": ""}]}})",
         "/hooks/createContainer/0/path: must be an absolute path, is \"\""},
        {R"({"hooks": {"startContainer": [{"path": "/x", "timeout": 0}]}})",
         "/hooks/startContainer/0/timeout: must be at least 1, is 0"},
        {R"({"hooks": {"poststart": [{"path": "/x", "timeout": -3}]}})",
         "/hooks/poststart/0/timeout: must be at least 1, is -3"},
        {R"({"hooks": {"poststop": [{"path": "/x"}, {"path": "/x", "env": ["A"]}]}})",
         "/hooks/poststop/1/env/0: an environment entry must have the form NAME=VALUE"},
        {R"({"hooks": {"poststop": [{"path": "/x", "timeout": 1.5}]}})",
         "/hooks/poststop/0/timeout: must be an integer, not 1.5"},
    });
    const Spec spec =
        parsed(R"({"hooks": {"poststop": [{"path": "/x", "args": ["x", "y"], "env": [],
        "timeout": 5}, {"path": "/z", "env": null}]}})");
    BOOST_TEST_REQUIRE(spec.hooks.poststop.size() == 2U);
    BOOST_TEST((spec.hooks.poststop[0].args == std::vector<std::string>{"x", "y"}));
    BOOST_TEST(spec.hooks.poststop[0].env.has_value());
    BOOST_TEST(spec.hooks.poststop[0].timeout.value() == 5);
    BOOST_TEST(!spec.hooks.poststop[1].env.has_value());
    BOOST_TEST(!spec.hooks.poststop[1].timeout.has_value());
}

// Not the specification's: see arca-hooks(5).
BOOST_AUTO_TEST_CASE(services_are_read_and_what_is_wrong_is_named) {
    checkRefusals({
        {R"({"hooks": {"poststart": [{"path": "/x", "service": {}}]}})",
         "/hooks/poststart/0: only prestart and createRuntime hooks can be services"},
        {R"({"hooks": {"startContainer": [{"path": "/x"}, {"path": "/x", "service": {}}]}})",
         "/hooks/startContainer/1: only prestart and createRuntime hooks can be services"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"redy": {}}}]}})",
         "/hooks/prestart/0/service/redy: is not known"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"name": "a/b"}}]}})",
         "/hooks/prestart/0/service/name: a/b is not of the form of an id"},
        {R"({"hooks": {"prestart": [{"path": "/x y", "service": {}}]}})",
         "/hooks/prestart/0/service: needs a name: that of its program is not of the form of an "
         "id"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"ready": {}}}]}})",
         "/hooks/prestart/0/service/ready: must have one of fd, port and socket"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"ready": {"fd": true, "port": 1}}}]}})",
         "/hooks/prestart/0/service/ready: must have one of fd, port and socket"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"ready": {"port": 0}}}]}})",
         "/hooks/prestart/0/service/ready/port: must be 1..4294967294, is 0"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"ready": {"socket": "s"}}}]}})",
         "/hooks/prestart/0/service/ready/socket: must be an absolute path"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"namespaces": ["pid"]}}]}})",
         "/hooks/prestart/0/service/namespaces: pid is not network"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"onExit": "restart"}}]}})",
         "/hooks/prestart/0/service/onExit: restart is neither ignore nor kill"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"stopSignal": "SIGX"}}]}})",
         "/hooks/prestart/0/service/stopSignal: SIGX is no signal"},
        {R"({"hooks": {"prestart": [{"path": "/x", "service": {"stopTimeout": 31}}]}})",
         "/hooks/prestart/0/service/stopTimeout: must be 0..30, is 31"},
    });
    const Spec spec = parsed(R"({"hooks": {"prestart": [{"path": "/sbin/tap", "service": {
        "ready": {"port": 5555}, "namespaces": ["network"], "onExit": "kill",
        "stopSignal": "SIGINT", "stopTimeout": 0}}, {"path": "/sbin/other", "service": {}}]}})");
    const HookService& tap = spec.hooks.prestart.at(0).service.value();
    BOOST_TEST(tap.name == "tap");
    BOOST_TEST((tap.ready == HookService::Ready::kPort));
    BOOST_TEST(tap.port == 5555U);
    BOOST_TEST(tap.network_namespace);
    BOOST_TEST((tap.on_exit == HookService::OnExit::kKill));
    BOOST_TEST(tap.stop_signal == 2);
    BOOST_TEST(tap.stop_timeout == 0);
    const HookService& other = spec.hooks.prestart.at(1).service.value();
    BOOST_TEST((other.ready == HookService::Ready::kExecuted));
    BOOST_TEST((other.on_exit == HookService::OnExit::kIgnore));
    BOOST_TEST(other.stop_signal == 15);
    BOOST_TEST(other.stop_timeout == 5);
    // Written and read again it is the same.
    const std::string written = writeSpec(spec);
    BOOST_TEST(writeSpec(parseSpec(written, Source::kWire).value()) == written);
}

BOOST_AUTO_TEST_CASE(vm_has_absolute_paths_and_known_formats) {
    checkRefusals({
        {R"({"vm": {"kernel": {}}})", "/vm/kernel/path: is required"},
        {R"({"vm": {"kernel": {"path": "k"}}})", "/vm/kernel/path: must be an absolute path, is k"},
        {R"({"vm": {"kernel": {"path": "/k", "initrd": "i"}}})",
         "/vm/kernel/initrd: must be an absolute path, is i"},
        {R"({"vm": {"hypervisor": {"path": ""}}})", "/vm/hypervisor/path: must not be empty"},
        {R"({"vm": {"image": {"path": "/i", "format": "iso"}}})",
         "/vm/image/format: iso is no image format"},
        {R"({"vm": {"image": {"path": "/i"}}})", "/vm/image/format: is required"},
        {R"({"vm": {"hwConfig": {"vcpus": -1}}})",
         "/vm/hwConfig/vcpus: must not be negative, is -1"},
        {R"({"vm": {"hwConfig": {"iomems": [{"firstMFN": 1}]}}})",
         "/vm/hwConfig/iomems/0/nrMFNs: is required"},
    });
    const Spec spec = parsed(R"({"vm": {"kernel": {"path": "/k", "parameters": ["quiet"]},
        "hwConfig": {"vcpus": 2, "memory": 1073741824}}})");
    BOOST_TEST_REQUIRE(spec.vm.has_value());
    BOOST_TEST(spec.vm->kernel->parameters.at(0) == "quiet");
    BOOST_TEST(spec.vm->hwConfig->memory.value() == 1073741824U);
}

// The shape that the Swift host of the protocol sends: everything there, empty where unset.
BOOST_AUTO_TEST_CASE(empty_strings_stand_for_absent_on_the_wire) {
    const std::string wire = R"({
        "ociVersion": "", "hostname": "", "domainname": "", "annotations": {},
        "root": {"path": "\/run\/container\/c\/rootfs", "readonly": false},
        "hooks": {"prestart": [], "createRuntime": [], "createContainer": [],
                  "startContainer": [], "poststart": [], "poststop": []},
        "process": {"cwd": "", "args": [], "env": [], "commandLine": "", "terminal": false,
                    "apparmorProfile": "", "selinuxLabel": "",
                    "user": {"uid": 0, "gid": 0, "username": "app:staff"}},
        "mounts": [{"destination": "/proc", "type": "", "source": "", "options": [],
                    "uidMappings": [], "gidMappings": []}],
        "linux": {"uidMappings": [], "gidMappings": [], "cgroupsPath": "", "mountLabel": "",
                  "rootfsPropagation": "", "maskedPaths": [], "readonlyPaths": [], "devices": [],
                  "namespaces": [{"type": "pid", "path": ""}, {"type": "mount", "path": ""}],
                  "resources": {"devices": [{"allow": false, "type": ""}],
                                "hugepageLimits": [{"pagesize": "2MB", "limit": 1}],
                                "cpu": {"cpus": "", "mems": "", "quota": 100000, "period": 100000},
                                "pids": {"limit": 10}}}})";
    const auto spec = parseSpec(wire, Source::kWire);
    BOOST_TEST_REQUIRE(spec.has_value(), (spec ? "" : spec.error().message()));
    BOOST_TEST(spec->ociVersion.empty());
    BOOST_TEST(spec->process->cwd == "/");
    BOOST_TEST(spec->process->user.username == "app:staff");
    BOOST_TEST(spec->linux.namespaces.at(0).path.empty());
    BOOST_TEST(spec->linux.resources->hugepageLimits.at(0).pageSize == "2MB");
    BOOST_TEST(spec->linux.resources->devices.at(0).type == 'a');
    BOOST_TEST(spec->root->path == "/run/container/c/rootfs");
    // A bundle is held to the specification.
    BOOST_TEST(complaint(wire) == "/ociVersion: is required");
    BOOST_TEST(
        parsed(R"({"process": {"user": {"username": "x"}}})").process->user.username.empty());
}

BOOST_AUTO_TEST_CASE(values_are_checked_on_the_wire_too) {
    BOOST_TEST(complaint(R"({"ociVersion": "x", "root": {"path": "r"}})", Source::kWire) ==
               "/ociVersion: x is no semantic version");
    BOOST_TEST(complaint(R"({})", Source::kWire) == "/root: is required");
    BOOST_TEST(complaint(config(R"({"process": {"cwd": "rel"}})"), Source::kWire) ==
               "/process/cwd: must be an absolute path, is rel");
}

BOOST_AUTO_TEST_CASE(bytes_that_are_no_text_cross_the_wire_but_not_a_bundle) {
    const std::string text =
        "{\"root\":{\"path\":\"r\"},\"ociVersion\":\"1.0.0\",\"process\":{\"cwd\":\"/"
        "\",\"args\":[\"a\xff\"]}}";
    const auto wire = parseSpec(text, Source::kWire);
    BOOST_TEST_REQUIRE(wire.has_value());
    BOOST_TEST(wire->process->args.at(0) == "a\xff");
    BOOST_TEST(complaint(text) == "invalid JSON at byte 71: the string is not UTF-8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::spec

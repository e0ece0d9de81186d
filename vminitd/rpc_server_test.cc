// The whole agent but its daemon: grpc++ stubs on one end of a socket pair, a played vmexec on the
// other side, cgroups in memory.
#include "vminitd/rpc_server.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "arca_extension.grpc.pb.h"
#include "base/error_texts.h"
#include "sandbox_context.grpc.pb.h"
#include "vminitd/fake_body.h"
#include "vminitd/fake_cgroup_fs.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

namespace wire_api = com::apple::containerization::sandbox::v3;
namespace ext_api = arca::sandbox::v1;
using grpc::StatusCode;
using nlohmann::json;

// Gives out played bodies.
class FakeBodies : public BodySource {
 public:
    void acquire(const BodyRequest&, std::function<void(base::Result<Body>)> ready) override {
        if (none) {
            return ready(base::fail(base::Code::kFailedPrecondition, "no process was attached"));
        }
        auto pair = base::socketPair(SOCK_SEQPACKET);
        last = std::make_shared<FakeBody>(behaviour, std::move(pair->second));
        all.push_back(last);
        base::UniqueFd pidfd;
        if (stage1 > 0) pidfd = std::move(*base::openPidfd(stage1));
        ready(Body{std::move(pair->first), std::move(pidfd), nullptr, nullptr});
    }
    bool none = false;
    pid_t stage1 = 0;  // a process of the test's that bodies are to have as their first one
    FakeBehaviour behaviour;
    std::shared_ptr<FakeBody> last;
    std::vector<std::shared_ptr<FakeBody>> all;
};

struct Sandbox {
    Sandbox() {
        cgroup_fs.populate = [](FakeCgroupFs& fs, const std::string& dir) {
            fs.files[dir + "/cgroup.procs"] = "";
            for (const char* file :
                 {"freezer.state", "devices.allow", "devices.deny", "memory.limit_in_bytes"}) {
                fs.files[dir + "/" + file] = "";
            }
        };
        cgroup_fs.dirs = {"/cg"};
        for (const char* name : {"/cg/freezer", "/cg/devices", "/cg/memory"}) {
            (void)cgroup_fs.makeDir(name);
        }
        (void)::mkdirat(rootfs.fd(), "etc", 0755);
        cgroups = std::move(*makeCgroupManager({{"freezer", "/cg/freezer", "/"},
                                                {"devices", "/cg/devices", "/"},
                                                {"memory", "/cg/memory", "/"}},
                                               cgroup_fs));
        loop = std::move(*EventLoop::make());
        restart();
        thread = std::thread([this] { loop->run(); });
        const auto pair = base::socketPair(SOCK_STREAM);
        base::UniqueFd client(::fcntl(pair->first.get(), F_DUPFD_CLOEXEC, 3));
        base::UniqueFd server(::fcntl(pair->second.get(), F_DUPFD_CLOEXEC, 3));
        (void)::fcntl(client.get(), F_SETFL, O_NONBLOCK);
        rpc = std::make_unique<RpcServer>(RpcServer::Parts{*loop, *agent, environment, activity});
        rpc->serve(std::move(server));
        channel = grpc::CreateInsecureChannelFromFd("agent", client.release());
        stub = wire_api::SandboxContext::NewStub(channel);
        extension = ext_api::SandboxExtension::NewStub(channel);
    }
    ~Sandbox() {
        channel.reset();
        rpc.reset();
        loop->post([this] { loop->stop(); });
        thread.join();
    }
    void restart() {
        agent = std::make_unique<Agent>(
            *loop, *cgroups, cgroup_fs, bodies,
            Agent::Config{
                .state_root = state.path(), .cgroup_prefix = "/container", .resctrl_root = "/res"},
            base::UniqueFd(::open(state.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)));
    }

    json config() const {
        return {{"ociVersion", ""},
                {"root", {{"path", rootfs.path()}}},
                {"process", {{"args", {"true"}}, {"cwd", "/"}, {"user", {{"uid", 0}, {"gid", 0}}}}},
                {"linux", {{"namespaces", {{{"type", "pid"}, {"path", ""}}}}}}};
    }
    grpc::Status create(const std::string& id, const std::string& container,
                        const std::string& configuration) {
        wire_api::CreateProcessRequest request;
        request.set_id(id);
        request.set_containerid(container);
        request.set_configuration(configuration);
        wire_api::CreateProcessResponse response;
        grpc::ClientContext context;
        return stub->CreateProcess(&context, request, &response);
    }
    grpc::Status create(const std::string& id) { return create(id, id, config().dump()); }
    template <typename Request>
    static Request request(const std::string& id, const std::string& container) {
        Request out;
        out.set_id(id);
        out.set_containerid(container);
        return out;
    }
    grpc::Status start(const std::string& id, const std::string& container, int* pid = nullptr) {
        wire_api::StartProcessResponse response;
        grpc::ClientContext context;
        const auto status = stub->StartProcess(
            &context, request<wire_api::StartProcessRequest>(id, container), &response);
        if (pid != nullptr) *pid = response.pid();
        return status;
    }
    grpc::Status kill(const std::string& id, const std::string& container, int number) {
        auto message = request<wire_api::KillProcessRequest>(id, container);
        message.set_signal(number);
        wire_api::KillProcessResponse response;
        grpc::ClientContext context;
        return stub->KillProcess(&context, message, &response);
    }
    grpc::Status resize(const std::string& id, uint32_t rows, uint32_t columns) {
        auto message = request<wire_api::ResizeProcessRequest>(id, id);
        message.set_rows(rows);
        message.set_columns(columns);
        wire_api::ResizeProcessResponse response;
        grpc::ClientContext context;
        return stub->ResizeProcess(&context, message, &response);
    }
    grpc::Status remove(const std::string& id, const std::string& container) {
        wire_api::DeleteProcessResponse response;
        grpc::ClientContext context;
        return stub->DeleteProcess(&context, request<wire_api::DeleteProcessRequest>(id, container),
                                   &response);
    }
    grpc::Status wait(const std::string& id, const std::string& container,
                      wire_api::WaitProcessResponse& response, int deadline_ms = 10'000) {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() +
                             std::chrono::milliseconds(deadline_ms));
        return stub->WaitProcess(&context, request<wire_api::WaitProcessRequest>(id, container),
                                 &response);
    }
    // Nothing on disk, nothing in the cgroups.
    bool nothingLeft(const std::string& id) {
        struct stat st {};
        const std::string guest = id + "/guest";
        return ::fstatat(state.fd(), guest.c_str(), &st, 0) != 0 &&
               cgroup_fs.dirs == std::set<std::string>{"/cg",
                                                       "/cg/freezer",
                                                       "/cg/devices",
                                                       "/cg/memory",
                                                       "/cg/freezer/container",
                                                       "/cg/devices/container",
                                                       "/cg/memory/container"};
    }

    TestFolder state;
    TestFolder rootfs;
    FakeCgroupFs cgroup_fs;
    std::unique_ptr<CgroupManager> cgroups;
    std::unique_ptr<EventLoop> loop;
    FakeBodies bodies;
    Environment environment{{}};
    Activity activity;
    std::unique_ptr<Agent> agent;
    std::unique_ptr<RpcServer> rpc;
    std::thread thread;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<wire_api::SandboxContext::Stub> stub;
    std::unique_ptr<ext_api::SandboxExtension::Stub> extension;
};

void checkStatus(const grpc::Status& status, StatusCode code, const std::string& text) {
    BOOST_TEST(static_cast<int>(status.error_code()) == static_cast<int>(code));
    BOOST_TEST(status.error_message() == text);
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(rpc_server, Sandbox)

BOOST_AUTO_TEST_CASE(missing_container_id) {
    wire_api::CreateProcessRequest message;
    message.set_id("a");
    wire_api::CreateProcessResponse response;
    grpc::ClientContext context;
    checkStatus(stub->CreateProcess(&context, message, &response), StatusCode::INVALID_ARGUMENT,
                "createProcess: failed to create process: invalidArgument: \"processes in the root "
                "of the vm not implemented\"");
}

BOOST_AUTO_TEST_CASE(malformed_ids_touch_nothing) {
    for (const char* id : {"", "..", "../x", "a/b"}) {
        BOOST_TEST(static_cast<int>(create(id).error_code()) ==
                   static_cast<int>(StatusCode::INVALID_ARGUMENT));
    }
    BOOST_TEST(base::listDir(state.fd())->empty());
}

BOOST_AUTO_TEST_CASE(unknown_containers) {
    checkStatus(start("a", "a"), StatusCode::NOT_FOUND,
                "startProcess: failed to start process: notFound: \"container a not found\"");
    checkStatus(kill("a", "a", 9), StatusCode::NOT_FOUND,
                "killProcess: failed to kill process: notFound: \"container a not found\"");
    checkStatus(remove("a", "a"), StatusCode::NOT_FOUND,
                "deleteProcess: failed to delete process: notFound: \"container a not found\"");
    wire_api::WaitProcessResponse response;
    checkStatus(wait("a", "a", response), StatusCode::NOT_FOUND,
                "waitProcess: failed to wait on process: notFound: \"container a not found\"");
    checkStatus(create("e", "a", config().dump()), StatusCode::INVALID_ARGUMENT,
                "createProcess: failed to create process: invalidArgument: \"init process id must "
                "match container id\"");
}

BOOST_AUTO_TEST_CASE(life) {
    BOOST_TEST_REQUIRE(create("c").ok());
    BOOST_TEST(cgroup_fs.dirs.contains("/cg/memory/container/c"));
    checkStatus(create("c"), StatusCode::ALREADY_EXISTS,
                std::string("createProcess: failed to create process: exists: \"") +
                    base::texts::kContainerIdExists + "\"");
    int pid = 0;
    BOOST_TEST_REQUIRE(start("c", "c", &pid).ok());
    BOOST_TEST(pid == bodies.last->child());
    checkStatus(start("c", "c"), StatusCode::FAILED_PRECONDITION,
                "startProcess: failed to start process: invalidState: \"cannot start an already "
                "running container\"");
    checkStatus(kill("e", "c", 9), StatusCode::FAILED_PRECONDITION,
                "killProcess: failed to kill process: invalidState: \"exec e does not exist in "
                "container c\"");
    BOOST_TEST(static_cast<int>(kill("c", "c", 65).error_code()) ==
               static_cast<int>(StatusCode::INVALID_ARGUMENT));
    BOOST_TEST(kill("c", "c", 0).ok());
    wire_api::WaitProcessResponse waited;
    BOOST_TEST(static_cast<int>(wait("c", "c", waited, 50).error_code()) ==
               static_cast<int>(StatusCode::DEADLINE_EXCEEDED));
    auto held = std::async(std::launch::async, [&] { return wait("c", "c", waited); });
    BOOST_TEST(kill("c", "c", SIGTERM).ok());
    bodies.last->endChild(SIGTERM);
    const auto ended = held.get();
    BOOST_TEST_REQUIRE(ended.ok(), ended.error_message());
    BOOST_TEST(waited.exitcode() == 128 + SIGTERM);
    BOOST_TEST(kill("c", "c", SIGTERM).ok());  // ended already: no error
    BOOST_TEST(remove("c", "c").ok());
    BOOST_TEST(nothingLeft("c"));
}

BOOST_AUTO_TEST_CASE(a_class_of_service_is_joined_and_goes_with_its_container) {
    cgroup_fs.dirs.insert({"/res", "/res/given"});
    cgroup_fs.files["/res/given/tasks"] = "";
    cgroup_fs.populate = [](FakeCgroupFs& fs, const std::string& dir) {
        for (const char* file : {"cgroup.procs", "freezer.state", "devices.allow", "devices.deny",
                                 "schemata", "tasks"}) {
            fs.files[dir + "/" + file] = "";
        }
    };
    json rdt = config();
    rdt["linux"]["intelRdt"]["schemata"] = {"L3:0=f"};
    BOOST_TEST_REQUIRE(create("c", "c", rdt.dump()).ok());
    BOOST_TEST(cgroup_fs.files["/res/c/schemata"] == "L3:0=f\n");
    BOOST_TEST(cgroup_fs.files["/res/c/tasks"] == std::to_string(bodies.last->child()));
    bodies.last->endChild(SIGKILL);
    wire_api::WaitProcessResponse waited;
    BOOST_TEST(wait("c", "c", waited).ok());
    BOOST_TEST(remove("c", "c").ok());
    BOOST_TEST(!cgroup_fs.dirs.contains("/res/c"));

    // A create that fails takes along what it has made, and nothing else.
    bodies.behaviour.fail_setup = "no";
    BOOST_TEST(!create("c", "c", rdt.dump()).ok());
    BOOST_TEST(!cgroup_fs.dirs.contains("/res/c"));
    rdt["linux"]["intelRdt"] = {{"closID", "given"}};
    BOOST_TEST(!create("c", "c", rdt.dump()).ok());
    BOOST_TEST(cgroup_fs.files["/res/given/tasks"] == std::to_string(bodies.last->child()));
    BOOST_TEST(cgroup_fs.dirs.erase("/res/given") == 1U);
    BOOST_TEST(cgroup_fs.dirs.erase("/res") == 1U);
    BOOST_TEST(nothingLeft("c"));
}

BOOST_AUTO_TEST_CASE(old_layout) {
    wire_api::CreateProcessRequest message;
    message.set_id("c");
    message.set_containerid("c");
    message.set_ociruntimepath(config().dump());
    wire_api::CreateProcessResponse response;
    grpc::ClientContext context;
    BOOST_TEST(stub->CreateProcess(&context, message, &response).ok());
}

BOOST_AUTO_TEST_CASE(failures_leave_nothing) {
    bodies.none = true;
    BOOST_TEST(static_cast<int>(create("c").error_code()) ==
               static_cast<int>(StatusCode::FAILED_PRECONDITION));
    bodies.none = false;
    bodies.behaviour.fail_before_pid = "clone: no";
    checkStatus(create("c"), StatusCode::INTERNAL,
                "createProcess: failed to create process: internalError: \"clone: no\"");
    BOOST_TEST(nothingLeft("c"));
    bodies.behaviour = {};
    bodies.behaviour.fail_setup = "mount /x: no such file or directory";
    checkStatus(create("c"), StatusCode::INTERNAL,
                "createProcess: failed to create process: internalError: \"mount /x: no such file "
                "or directory\"");
    BOOST_TEST(nothingLeft("c"));
    bodies.behaviour = {};
    bodies.behaviour.vanish_after_pid = true;
    BOOST_TEST(static_cast<int>(create("c").error_code()) ==
               static_cast<int>(StatusCode::INTERNAL));
    BOOST_TEST(nothingLeft("c"));
    bodies.behaviour = {};
    BOOST_TEST(create("c").ok());
}

// A command sees the end of what it forked perhaps before the agent's answer: a signal would stand
// in for the reason.
BOOST_AUTO_TEST_CASE(a_body_that_reports_its_failure_is_left_to_end_by_itself) {
    for (const bool before_pid : {true, false}) {
        const pid_t child = ::fork();
        if (child == 0) {
            (void)base::closeOnExecFrom(0);
            ::execl("/bin/sleep", "sleep", "60", nullptr);
            ::_exit(127);
        }
        bodies.stage1 = child;
        bodies.behaviour = {};
        (before_pid ? bodies.behaviour.fail_before_pid : bodies.behaviour.fail_setup) = "no";
        BOOST_TEST(!create("c").ok());
        BOOST_TEST(::waitpid(child, nullptr, WNOHANG) == 0);
        (void)::kill(child, SIGKILL);
        (void)::waitpid(child, nullptr, 0);
    }
}

BOOST_AUTO_TEST_CASE(wrong_configurations) {
    for (const char* text : {"", "{", "{}", "[]"}) {
        BOOST_TEST(static_cast<int>(create("c", "c", text).error_code()) ==
                   static_cast<int>(StatusCode::INVALID_ARGUMENT));
    }
    json ghost = config();
    ghost["process"]["user"]["username"] = "ghost";
    const auto status = create("c", "c", ghost.dump());
    BOOST_TEST(static_cast<int>(status.error_code()) == static_cast<int>(StatusCode::INTERNAL));
    BOOST_TEST(status.error_message().find("/etc/passwd") != std::string::npos);
    BOOST_TEST(base::listDir(state.fd())->empty());
}

BOOST_AUTO_TEST_CASE(a_failed_start_tells_why) {
    bodies.behaviour.fail_start = "exec /x: permission denied";
    BOOST_TEST_REQUIRE(create("c").ok());
    checkStatus(start("c", "c"), StatusCode::INTERNAL,
                "startProcess: failed to start process: internalError: \"exec /x: permission "
                "denied\"");
    bodies.last->endChild(SIGKILL);
    checkStatus(start("c", "c"), StatusCode::FAILED_PRECONDITION,
                "startProcess: failed to start process: invalidState: \"cannot start a container "
                "that has stopped\"");
}

// kata-containers/kata-containers#6248
BOOST_AUTO_TEST_CASE(terminal_sizes) {
    json terminal = config();
    terminal["process"]["terminal"] = true;
    BOOST_TEST_REQUIRE(create("t", "t", terminal.dump()).ok());
    BOOST_TEST(resize("t", 40, 120).ok());
    BOOST_TEST(static_cast<int>(resize("t", 65536, 1).error_code()) ==
               static_cast<int>(StatusCode::INVALID_ARGUMENT));
    BOOST_TEST_REQUIRE(create("p").ok());
    checkStatus(resize("p", 1, 1), StatusCode::UNIMPLEMENTED,
                "resizeProcess: failed to resize process: unsupported: \"resize not supported\"");
}

BOOST_AUTO_TEST_CASE(execs) {
    BOOST_TEST_REQUIRE(create("c").ok());
    BOOST_TEST_REQUIRE(start("c", "c").ok());
    cgroup_fs.files["/proc/" + std::to_string(bodies.last->child()) + "/cgroup"] =
        "3:freezer:/container/c\n";
    const auto init = bodies.last;
    BOOST_TEST_REQUIRE(create("e", "c", config().dump()).ok());
    BOOST_TEST(static_cast<int>(create("e", "c", config().dump()).error_code()) ==
               static_cast<int>(StatusCode::ALREADY_EXISTS));
    int pid = 0;
    BOOST_TEST_REQUIRE(start("e", "c", &pid).ok());
    BOOST_TEST(pid != init->child());
    BOOST_TEST(remove("e", "c").ok());
    checkStatus(remove("e", "c"), StatusCode::FAILED_PRECONDITION,
                "deleteProcess: failed to delete process: invalidState: \"exec e does not exist in "
                "container c\"");
    init->endChild(SIGKILL);
    BOOST_TEST(static_cast<int>(create("f", "c", config().dump()).error_code()) ==
               static_cast<int>(StatusCode::FAILED_PRECONDITION));
}

BOOST_AUTO_TEST_CASE(a_new_agent_finds_what_the_old_one_made) {
    BOOST_TEST_REQUIRE(create("c").ok());
    const pid_t pid = bodies.last->child();
    std::promise<void> done;
    loop->post([&] {
        // The old one's memory goes, as with kill -9; the reference in the service stays.
        agent->~Agent();
        new (agent.get()) Agent(
            *loop, *cgroups, cgroup_fs, bodies,
            Agent::Config{
                .state_root = state.path(), .cgroup_prefix = "/container", .resctrl_root = "/res"},
            base::UniqueFd(::open(state.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)));
        done.set_value();
    });
    done.get_future().wait();
    ext_api::ContainerStateRequest request;
    request.set_container_id("c");
    ext_api::ContainerStateResponse response;
    {
        grpc::ClientContext context;
        BOOST_TEST_REQUIRE(extension->ContainerState(&context, request, &response).ok());
    }
    BOOST_TEST(response.pid() == pid);
    BOOST_TEST(static_cast<int>(response.status()) ==
               static_cast<int>(ext_api::ContainerStateResponse::CREATED));
    BOOST_TEST(start("c", "c").ok());
    BOOST_TEST(remove("c", "c").ok());
    BOOST_TEST(nothingLeft("c"));
}

BOOST_AUTO_TEST_CASE(a_broken_record_is_named_and_can_be_deleted) {
    BOOST_TEST_REQUIRE(create("c").ok());
    BOOST_TEST_REQUIRE(base::makeDirs(state.path() + "/c/guest", 0700).has_value());
    state.write("c/guest/init.json", "{");
    const auto status = start("c", "c");
    BOOST_TEST(static_cast<int>(status.error_code()) == static_cast<int>(StatusCode::INTERNAL));
    BOOST_TEST(status.error_message().find("/c/guest/init.json") != std::string::npos);
    BOOST_TEST(remove("c", "c").ok());
    BOOST_TEST(nothingLeft("c"));
}

BOOST_AUTO_TEST_CASE(what_is_not_there_is_unimplemented) {
    grpc::ClientContext context;
    wire_api::MountResponse response;
    BOOST_TEST(static_cast<int>(stub->Mount(&context, {}, &response).error_code()) ==
               static_cast<int>(StatusCode::UNIMPLEMENTED));
    grpc::ClientContext kill_context;
    wire_api::KillRequest everything;
    everything.set_pid(-1);
    everything.set_signal(9);
    wire_api::KillResponse killed;
    BOOST_TEST(static_cast<int>(stub->Kill(&kill_context, everything, &killed).error_code()) ==
               static_cast<int>(StatusCode::UNIMPLEMENTED));
}

BOOST_AUTO_TEST_CASE(sandbox_files) {
    TestFolder folder;
    const auto call = [&](auto method, const auto& request, auto& response) {
        grpc::ClientContext context;
        return (stub.get()->*method)(&context, request, &response);
    };
    using Stub = wire_api::SandboxContext::Stub;
    wire_api::MkdirRequest mkdir;
    wire_api::MkdirResponse mkdir_response;
    mkdir.set_path(folder.path() + "/a/b");
    mkdir.set_perms(0700);
    BOOST_TEST(!call(&Stub::Mkdir, mkdir, mkdir_response).ok());
    mkdir.set_all(true);
    BOOST_TEST(call(&Stub::Mkdir, mkdir, mkdir_response).ok());
    BOOST_TEST(call(&Stub::Mkdir, mkdir, mkdir_response).ok());
    wire_api::WriteFileRequest write;
    wire_api::WriteFileResponse write_response;
    write.set_path(folder.path() + "/a/b/f");
    write.set_data("longer text");
    BOOST_TEST(static_cast<int>(call(&Stub::WriteFile, write, write_response).error_code()) ==
               static_cast<int>(StatusCode::INTERNAL));
    write.mutable_flags()->set_create_if_missing(true);
    BOOST_TEST(call(&Stub::WriteFile, write, write_response).ok());
    write.set_data("short");
    BOOST_TEST(call(&Stub::WriteFile, write, write_response).ok());
    BOOST_TEST(*base::readFile(folder.path() + "/a/b/f") == "short");
    wire_api::StatRequest stat;
    wire_api::StatResponse stat_response;
    stat.set_path(folder.path() + "/a/b/f");
    BOOST_TEST(call(&Stub::Stat, stat, stat_response).ok());
    BOOST_TEST(stat_response.stat().mode() == (S_IFREG | 0644U));
    stat.set_path(folder.path() + "/nosuch");
    checkStatus(call(&Stub::Stat, stat, stat_response), StatusCode::NOT_FOUND,
                "stat: path not found '" + stat.path() + "'");
    wire_api::SetenvRequest set;
    wire_api::SetenvResponse set_response;
    set.set_key("A");
    BOOST_TEST(call(&Stub::Setenv, set, set_response).ok());
    wire_api::GetenvRequest get;
    wire_api::GetenvResponse got;
    get.set_key("A");
    BOOST_TEST(call(&Stub::Getenv, get, got).ok());
    BOOST_TEST(got.has_value());
    get.set_key("B");
    BOOST_TEST(call(&Stub::Getenv, get, got).ok());
    BOOST_TEST(!got.has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd

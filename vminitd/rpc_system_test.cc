// The calls about the sandbox through gRPC: a server on one end of a socket pair, a folder of
// sockets as the host. What changes a machine is not offered here; its own tests are in namespaces.
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <future>
#include <thread>

#include "base/socket.h"
#include "base/transport.h"
#include "sandbox_context.grpc.pb.h"
#include "vminitd/fake_cgroup_fs.h"
#include "vminitd/rpc_server.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

namespace api = com::apple::containerization::sandbox::v3;
using base::UniqueFd;
using grpc::StatusCode;
using Stub = api::SandboxContext::Stub;
using namespace std::chrono_literals;

class NoBodies : public BodySource {
 public:
    void acquire(const BodyRequest&, std::function<void(base::Result<Body>)> ready) override {
        ready(base::fail(base::Code::kFailedPrecondition, "there are none"));
    }
};

struct SystemSandbox {
    explicit SystemSandbox(bool with_host = true) {
        (void)::signal(SIGPIPE, SIG_IGN);  // of the tests' own writes
        cgroup_fs.dirs = {"/cg"};
        (void)cgroup_fs.makeDir("/cg/freezer");
        cgroups = std::move(*makeCgroupManager({{"freezer", "/cg/freezer", "/"}}, cgroup_fs));
        loop = std::move(*EventLoop::make());
        agent = std::make_unique<Agent>(
            *loop, *cgroups, cgroup_fs, bodies,
            Agent::Config{.state_root = containers.path(), .cgroup_prefix = "/container"},
            UniqueFd(::open(containers.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)));
        transport = std::move(*base::openTransport("unix://" + host.path()));
        thread = std::thread([this] { loop->run(); });
        rpc = std::make_unique<RpcServer>(
            RpcServer::Parts{.loop = *loop,
                             .agent = *agent,
                             .environment = environment,
                             .activity = activity,
                             .host = with_host ? transport.get() : nullptr,
                             .containers = containers.path()});
        auto pair = base::socketPair(SOCK_STREAM);
        (void)::fcntl(pair->first.get(), F_SETFL, O_NONBLOCK);
        rpc->serve(std::move(pair->second));
        channel = grpc::CreateInsecureChannelFromFd("agent", pair->first.release());
        stub = api::SandboxContext::NewStub(channel);
        rootfs = containers.path() + "/c/rootfs";
        BOOST_TEST_REQUIRE(base::makeDirs(rootfs, 0755).has_value());
    }
    ~SystemSandbox() {
        channel.reset();
        rpc.reset();
        loop->post([this] { loop->stop(); });
        thread.join();
        BOOST_TEST(!activity.busy());
    }
    template <typename Request, typename Response>
    grpc::Status call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                      const Request& request, Response* response = nullptr) {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + 60s);
        Response own;
        return (stub.get()->*method)(&context, request, response == nullptr ? &own : response);
    }
    StatusCode stat(const std::string& path) {
        api::StatRequest request;
        request.set_path(path);
        return call(&Stub::Stat, request).error_code();
    }

    TestFolder containers, host;
    std::string rootfs;
    FakeCgroupFs cgroup_fs;
    std::unique_ptr<CgroupManager> cgroups;
    std::unique_ptr<EventLoop> loop;
    NoBodies bodies;
    Environment environment{{}};
    Activity activity;
    std::unique_ptr<Agent> agent;
    std::unique_ptr<base::Transport> transport;
    std::unique_ptr<RpcServer> rpc;
    std::thread thread;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<Stub> stub;
};

struct LocalSandbox : SystemSandbox {
    LocalSandbox() : SystemSandbox(false) {}
};

void checkCode(const grpc::Status& status, StatusCode code, const std::string& part = {}) {
    BOOST_TEST(static_cast<int>(status.error_code()) == static_cast<int>(code),
               status.error_message());
    BOOST_TEST(status.error_message().find(part) != std::string::npos, status.error_message());
}

// One Copy, with the host's part played by `host`, which gets the data connection.
struct CopyCall {
    grpc::Status status;
    std::vector<api::CopyResponse> responses;
};
CopyCall copy(SystemSandbox& sandbox, const api::CopyRequest& request,
              const std::function<void(UniqueFd)>& play) {
    auto listener = sandbox.transport->listen(request.vsock_port());
    BOOST_TEST_REQUIRE(listener.has_value());
    std::thread thread([&] {
        if (!*base::waitReadable((*listener)->fd(), 20s)) return;
        auto connection = (*listener)->accept();
        if (connection) play(std::move(*connection));
    });
    CopyCall out;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 60s);
    const auto reader = sandbox.stub->Copy(&context, request);
    api::CopyResponse response;
    while (reader->Read(&response)) out.responses.push_back(response);
    out.status = reader->Finish();
    if (!out.status.ok())
        (void)sandbox.transport->dial(request.vsock_port(), 1s);  // wakes the host
    thread.join();
    return out;
}

api::CopyRequest copyRequest(api::CopyRequest::Direction direction, const std::string& path,
                             bool archive = false) {
    api::CopyRequest request;
    request.set_direction(direction);
    request.set_path(path);
    request.set_vsock_port(7000);
    request.set_is_archive(archive);
    return request;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(rpc_system, SystemSandbox)

BOOST_AUTO_TEST_CASE(a_file_in_and_out_again) {
    const std::string text(5'000'000, 'x');
    auto request = copyRequest(api::CopyRequest::COPY_IN, rootfs + "/d/f");
    request.set_create_parents(true);
    request.set_mode(0600);
    const auto in = copy(
        *this, request, [&](UniqueFd connection) { (void)base::writeAll(connection.get(), text); });
    checkCode(in.status, StatusCode::OK);
    BOOST_TEST_REQUIRE(in.responses.size() == 1U);
    BOOST_TEST(in.responses[0].status() == api::CopyResponse::COMPLETE);
    std::string got;
    const auto out = copy(*this, copyRequest(api::CopyRequest::COPY_OUT, rootfs + "/d/f"),
                          [&](UniqueFd connection) {
                              got = base::readAll(connection.get(), size_t{64} << 20U).value();
                          });
    checkCode(out.status, StatusCode::OK);
    BOOST_TEST_REQUIRE(out.responses.size() == 2U);
    BOOST_TEST(out.responses[0].status() == api::CopyResponse::METADATA);
    BOOST_TEST(!out.responses[0].is_archive());
    BOOST_TEST(out.responses[0].total_size() == text.size());
    BOOST_TEST(out.responses[1].status() == api::CopyResponse::COMPLETE);
    BOOST_TEST((got == text));
}

BOOST_AUTO_TEST_CASE(a_folder_out_and_in_again) {
    BOOST_TEST_REQUIRE(base::makeDirs(rootfs + "/tree/a/b", 0755).has_value());
    containers.write("c/rootfs/tree/a/b/f", "text");
    std::string archive;
    const auto out = copy(*this, copyRequest(api::CopyRequest::COPY_OUT, rootfs + "/tree"),
                          [&](UniqueFd connection) {
                              archive = base::readAll(connection.get(), size_t{64} << 20U).value();
                          });
    checkCode(out.status, StatusCode::OK);
    BOOST_TEST_REQUIRE(out.responses.size() == 2U);
    BOOST_TEST(out.responses[0].is_archive());
    const auto in =
        copy(*this, copyRequest(api::CopyRequest::COPY_IN, rootfs + "/other", true),
             [&](UniqueFd connection) { (void)base::writeAll(connection.get(), archive); });
    checkCode(in.status, StatusCode::OK);
    BOOST_TEST(*base::readFile(rootfs + "/other/a/b/f") == "text");
}

BOOST_AUTO_TEST_CASE(copies_that_fail_say_why) {
    const auto nothing = [](UniqueFd) {};
    checkCode(copy(*this, copyRequest(api::CopyRequest::COPY_OUT, rootfs + "/no"), nothing).status,
              StatusCode::NOT_FOUND, "copy: path not found '" + rootfs + "/no'");
    checkCode(copy(*this, copyRequest(api::CopyRequest::COPY_IN, rootfs + "/a", true),
                   [](UniqueFd fd) { (void)base::writeAll(fd.get(), "no archive"); })
                  .status,
              StatusCode::INVALID_ARGUMENT, "archive: ");
    checkCode(copy(*this, copyRequest(api::CopyRequest::COPY_IN, rootfs + "/no/f"), nothing).status,
              StatusCode::INTERNAL, "no such file or directory");
    checkCode(copy(*this, copyRequest(api::CopyRequest::COPY_IN, "relative"), nothing).status,
              StatusCode::INVALID_ARGUMENT, "not absolute");
    auto unknown = copyRequest(api::CopyRequest::COPY_IN, rootfs + "/f");
    unknown.set_direction(static_cast<api::CopyRequest::Direction>(7));
    checkCode(copy(*this, unknown, nothing).status, StatusCode::INVALID_ARGUMENT,
              "unknown direction");
    // Nobody listens.
    grpc::ClientContext context;
    const auto reader = stub->Copy(&context, copyRequest(api::CopyRequest::COPY_IN, rootfs + "/f"));
    api::CopyResponse response;
    BOOST_TEST(!reader->Read(&response));
    checkCode(reader->Finish(), StatusCode::INTERNAL, "copy: ");
}

BOOST_AUTO_TEST_CASE(a_copy_does_not_leave_the_container) {
    containers.write("victim", "mine");
    BOOST_TEST_REQUIRE(::symlink(containers.path().c_str(), (rootfs + "/out").c_str()) == 0);
    BOOST_TEST_REQUIRE(::symlink("../../victim", (rootfs + "/up").c_str()) == 0);
    const auto write = [](UniqueFd fd) { (void)base::writeAll(fd.get(), "theirs"); };
    for (const char* path : {"/out/victim", "/up"}) {
        checkCode(
            copy(*this, copyRequest(api::CopyRequest::COPY_OUT, rootfs + path), [](UniqueFd) {})
                .status,
            StatusCode::NOT_FOUND);
        (void)copy(*this, copyRequest(api::CopyRequest::COPY_IN, rootfs + path), write);
        BOOST_TEST(*base::readFile(containers.path() + "/victim") == "mine");
    }
}

// Two hosts that never send anything have both workers; everybody else goes on, and cancelling
// gives them back.
BOOST_AUTO_TEST_CASE(copies_that_hang_hold_up_nobody_and_can_be_cancelled) {
    auto listener = transport->listen(7000);
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    std::vector<std::unique_ptr<grpc::ClientReader<api::CopyResponse>>> readers;
    std::vector<UniqueFd> silent;
    for (int i = 0; i < 3; ++i) {
        contexts.push_back(std::make_unique<grpc::ClientContext>());
        readers.push_back(
            stub->Copy(contexts.back().get(),
                       copyRequest(api::CopyRequest::COPY_IN, rootfs + "/f" + std::to_string(i))));
    }
    for (int i = 0; i < 2; ++i) silent.push_back(std::move(*(*listener)->accept()));
    BOOST_TEST(static_cast<int>(stat(rootfs)) == static_cast<int>(StatusCode::OK));
    api::CopyResponse response;
    for (size_t i = 0; i < 2; ++i) {
        contexts[i]->TryCancel();
        BOOST_TEST(!readers[i]->Read(&response));
        checkCode(readers[i]->Finish(), StatusCode::CANCELLED);
        // Its connection is closed.
        char byte = 0;
        BOOST_TEST(::recv(silent[i].get(), &byte, 1, 0) == 0);
    }
    const auto third = (*listener)->accept();
    BOOST_TEST_REQUIRE(third.has_value());
    BOOST_TEST(base::writeAll(third->get(), "late").has_value());
    (void)::shutdown(third->get(), SHUT_WR);
    BOOST_TEST(readers[2]->Read(&response));
    checkCode(readers[2]->Finish(), StatusCode::OK);
    BOOST_TEST(*base::readFile(rootfs + "/f2") == "late");
}

BOOST_AUTO_TEST_CASE(the_server_goes_down_with_a_copy_under_way) {
    auto listener = transport->listen(7000);
    grpc::ClientContext context;
    const auto reader = stub->Copy(&context, copyRequest(api::CopyRequest::COPY_IN, rootfs + "/f"));
    const auto silent = (*listener)->accept();
    rpc.reset();
    api::CopyResponse response;
    BOOST_TEST(!reader->Read(&response));
    BOOST_TEST(!reader->Finish().ok());
}

BOOST_AUTO_TEST_CASE(a_proxy_and_its_end) {
    api::ProxyVsockRequest request;
    request.set_id("p");
    request.set_vsock_port(5000);
    request.set_guestpath(rootfs + "/run/s.sock");
    request.set_guestsocketpermissions(0600);
    const auto listener = transport->listen(5000);
    checkCode(call(&Stub::ProxyVsock, request), StatusCode::OK);
    checkCode(call(&Stub::ProxyVsock, request), StatusCode::INTERNAL, "proxy p exists already");
    const auto client = base::connectUnixPath(rootfs + "/run/s.sock", SOCK_STREAM);
    BOOST_TEST_REQUIRE(client.has_value());
    const auto server = (*listener)->accept();
    BOOST_TEST(base::writeAll(client->get(), "hello").has_value());
    (void)::shutdown(client->get(), SHUT_WR);
    BOOST_TEST(base::readAll(server->get(), 100).value() == "hello");
    api::StopVsockProxyRequest stop;
    stop.set_id("p");
    checkCode(call(&Stub::StopVsockProxy, stop), StatusCode::OK);
    checkCode(call(&Stub::StopVsockProxy, stop), StatusCode::INTERNAL, "proxy p not found");
    request.set_id("");
    checkCode(call(&Stub::ProxyVsock, request), StatusCode::INVALID_ARGUMENT, "malformed id");
    request.set_id("q");
    request.set_action(static_cast<api::ProxyVsockRequest::Action>(9));
    checkCode(call(&Stub::ProxyVsock, request), StatusCode::INVALID_ARGUMENT, "unknown action");
}

BOOST_AUTO_TEST_CASE(a_server_goes_down_with_a_proxy_in_use) {
    api::ProxyVsockRequest request;
    request.set_id("p");
    request.set_vsock_port(5000);
    request.set_guestpath(rootfs + "/s.sock");
    const auto listener = transport->listen(5000);
    checkCode(call(&Stub::ProxyVsock, request), StatusCode::OK);
    const auto client = base::connectUnixPath(rootfs + "/s.sock", SOCK_STREAM);
    const auto server = (*listener)->accept();
    rpc.reset();
    struct stat st {};
    BOOST_TEST(::stat((rootfs + "/s.sock").c_str(), &st) != 0);
}

BOOST_AUTO_TEST_CASE(resolver_files_are_written) {
    api::ConfigureDnsRequest dns;
    dns.set_location(rootfs);
    dns.add_nameservers("1.1.1.1");
    checkCode(call(&Stub::ConfigureDns, dns), StatusCode::OK);
    BOOST_TEST(*base::readFile(rootfs + "/etc/resolv.conf") == "nameserver 1.1.1.1\n");
    dns.add_options("a\nnameserver 6.6.6.6");
    checkCode(call(&Stub::ConfigureDns, dns), StatusCode::INVALID_ARGUMENT,
              "configureDns: malformed option \"a\\x0anameserver 6.6.6.6\"");
    api::ConfigureHostsRequest hosts;
    hosts.set_location(rootfs);
    hosts.set_comment("made");
    auto& entry = *hosts.add_entries();
    entry.set_ipaddress("127.0.0.1");
    entry.add_hostnames("localhost");
    checkCode(call(&Stub::ConfigureHosts, hosts), StatusCode::OK);
    BOOST_TEST(*base::readFile(rootfs + "/etc/hosts") == "# made\n127.0.0.1 localhost\n");
    hosts.set_location(rootfs + "/nosuch");
    checkCode(call(&Stub::ConfigureHosts, hosts), StatusCode::INTERNAL,
              "configureHosts: " + rootfs + "/nosuch/etc/hosts: open ");
}

BOOST_AUTO_TEST_CASE(stat_tells_two_kinds_of_failure) {
    api::StatRequest request;
    api::StatResponse response;
    request.set_path(rootfs + "/no");
    checkCode(call(&Stub::Stat, request, &response), StatusCode::NOT_FOUND,
              "stat: path not found '" + rootfs + "/no'");
    containers.write("c/rootfs/file", "");
    request.set_path(rootfs + "/file/below");
    checkCode(call(&Stub::Stat, request, &response), StatusCode::OK);
    BOOST_TEST(response.error().find("not a directory") != std::string::npos);
    BOOST_TEST(!response.has_stat());
    checkCode(call(&Stub::Sync, api::SyncRequest()), StatusCode::OK);
}

BOOST_AUTO_TEST_CASE(statistics_of_unknown_containers) {
    api::ContainerStatisticsRequest request;
    checkCode(call(&Stub::ContainerStatistics, request), StatusCode::OK);
    request.add_container_ids("no");
    request.add_container_ids("../no");
    checkCode(call(&Stub::ContainerStatistics, request), StatusCode::INTERNAL,
              "containerStatistics: container no not found");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(rpc_system_without_a_vm, LocalSandbox)

BOOST_AUTO_TEST_CASE(what_would_change_the_host_is_refused) {
    const auto refused = [](const grpc::Status& status, const char* name) {
        checkCode(status, StatusCode::UNIMPLEMENTED,
                  std::string(name) + ": not offered in a local sandbox");
    };
    refused(call(&Stub::Mount, api::MountRequest()), "mount");
    refused(call(&Stub::Umount, api::UmountRequest()), "umount");
    refused(call(&Stub::Sysctl, api::SysctlRequest()), "sysctl");
    refused(call(&Stub::SetTime, api::SetTimeRequest()), "setTime");
    refused(call(&Stub::SetupEmulator, api::SetupEmulatorRequest()), "setupEmulator");
    refused(call(&Stub::FilesystemOperation, api::FilesystemOperationRequest()),
            "filesystemOperation");
    refused(call(&Stub::IpLinkSet, api::IpLinkSetRequest()), "ipLinkSet");
    refused(call(&Stub::IpAddrAdd, api::IpAddrAddRequest()), "ipAddrAdd");
    refused(call(&Stub::IpRouteAddLink, api::IpRouteAddLinkRequest()), "ipRouteAddLink");
    refused(call(&Stub::IpRouteAddDefault, api::IpRouteAddDefaultRequest()), "ipRouteAddDefault");
    refused(call(&Stub::ProxyVsock, api::ProxyVsockRequest()), "proxyVsock");
    refused(call(&Stub::StopVsockProxy, api::StopVsockProxyRequest()), "stopVsockProxy");
    for (const int pid : {-1, 0, 1, 999'999}) {
        api::KillRequest kill;
        kill.set_pid(pid);
        refused(call(&Stub::Kill, kill), "kill");
    }
    grpc::ClientContext context;
    const auto reader = stub->Copy(&context, api::CopyRequest());
    api::CopyResponse response;
    BOOST_TEST(!reader->Read(&response));
    refused(reader->Finish(), "copy");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd

#include "vminitd/rpc_server.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/server_posix.h>

#include <chrono>
#include <future>
#include <utility>

#include "vminitd/rpc_context.h"
#include "vminitd/rpc_extension.h"

namespace arca::vminitd {

namespace {

constexpr int kMaxReceiveBytes = 16 << 20;  // a configuration may be 10 MiB

}  // namespace

struct RpcServer::Impl {
    explicit Impl(const Parts& parts) : state(parts), context(state), extension(parts) {
        if (parts.host != nullptr) {
            state.proxies = std::make_shared<Proxies>(parts.loop, *parts.host, state.dials);
        }
        grpc::ServerBuilder builder;
        builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
        builder.RegisterService(&context);
        builder.RegisterService(&extension);
        // Nobody reads these here; each costs work for every connection or call.
        builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
        builder.AddChannelArgument(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0);
        builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
        builder.AddChannelArgument(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0);  // clients cancel in time
        builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
        server = builder.BuildAndStart();
    }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    ~Impl() { shutDown(); }
    void shutDown() {
        if (std::exchange(down, true)) return;
        // What is held up in a worker comes to its end, so that no call is left.
        for (Workers* pool : {&state.files, &state.mounts, &state.thaws, &state.copies}) {
            pool->stop();
        }
        server->Shutdown(std::chrono::system_clock::now());
        state.dials.stop();
        if (!state.proxies) return;
        std::promise<void> closed;
        state.parts.loop.post([this, &closed] {
            state.proxies->closeAll();
            closed.set_value();
        });
        closed.get_future().wait();
    }

    RpcState state;
    ContextService context;
    ExtensionService extension;
    std::unique_ptr<grpc::Server> server;
    bool down = false;
};

RpcServer::RpcServer(const Parts& parts) : impl_(std::make_unique<Impl>(parts)) {}

RpcServer::~RpcServer() = default;

void RpcServer::shutDown() {
    impl_->shutDown();
}

void RpcServer::serve(base::UniqueFd connection) {
    const int flags = ::fcntl(connection.get(), F_GETFL);
    if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0) return;
    grpc::AddInsecureChannelFromFd(impl_->server.get(), connection.release());
}

}  // namespace arca::vminitd

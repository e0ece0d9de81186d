// SandboxContext: Copy. The call carries the status, a connection to the host the data.
#include <condition_variable>
#include <mutex>

#include "vminitd/copy.h"
#include "vminitd/rpc_context.h"
#include "vminitd/rpc_status.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using grpc::Status;
using grpc::StatusCode;

namespace {

constexpr std::chrono::milliseconds kDialLimit{30'000};

// Deletes itself in OnDone, which comes after the worker has finished the call and not before.
class CopyReactor : public grpc::ServerWriteReactor<wire::CopyResponse> {
 public:
    CopyReactor(RpcState& state, const wire::CopyRequest& request)
        : state_(state), request_(request) {
        if (state_.parts.host == nullptr) {
            end(refusedWithoutHost("copy"));
            return;
        }
        state_.parts.activity.begin();
        if (state_.copies.post([this] { run(); })) return;
        state_.parts.activity.end();
        end({StatusCode::RESOURCE_EXHAUSTED, "copy: too many are waiting already"});
    }

    void OnCancel() override { stop_.set(); }
    void OnWriteDone(bool /*ok: a failed one is followed by OnCancel*/) override {
        const std::lock_guard<std::mutex> lock(mutex_);
        metadata_written_ = true;
        written_.notify_all();
    }
    void OnDone() override { delete this; }

 private:
    void end(Status status) { Finish(std::move(status)); }

    void run() {
        Status status = copy();
        state_.parts.activity.end();
        if (stop_.isSet()) return end(Status::CANCELLED);
        if (!status.ok()) return end(std::move(status));
        response_.Clear();
        response_.set_status(wire::CopyResponse::COMPLETE);
        StartWriteAndFinish(&response_, grpc::WriteOptions(), Status::OK);
    }

    Status copy() {
        if (stop_.isSet()) return Status::CANCELLED;
        auto path = GuestPath::parse(request_.path(), state_.parts.containers);
        if (!path) return systemStatus("copy", path.error());
        switch (request_.direction()) {
            case wire::CopyRequest::COPY_IN:
                return systemStatus("copy", in(*path));
            case wire::CopyRequest::COPY_OUT:
                return out(*path);
            default:
                return {StatusCode::INVALID_ARGUMENT, "copy: unknown direction"};
        }
    }

    Result<> in(const GuestPath& path) {
        const CopyInRequest request{.path = path,
                                    .mode = request_.mode(),
                                    .create_parents = request_.create_parents(),
                                    .is_archive = request_.is_archive(),
                                    .exact = request_.exact()};
        if (request.exact && !request.is_archive) {
            return base::fail(Code::kInvalidArgument, "exact: only a folder can be copied so");
        }
        ARCA_CHECK(prepareCopyIn(request));
        ARCA_TRY(base::DataChannel channel, dial());
        const CopyMemory::Use room(state_.copy_memory);
        return copyIn(request, channel);
    }

    Status out(const GuestPath& path) {
        const auto source = openCopySource(path);
        if (!source && source.error().code() == Code::kNotFound) {
            return {StatusCode::NOT_FOUND, "copy: path not found '" + request_.path() + "'"};
        }
        if (!source) return systemStatus("copy", source.error());
        // Before dialling: the host accepts once it has read this.
        response_.set_status(wire::CopyResponse::METADATA);
        response_.set_is_archive(source->is_archive);
        response_.set_total_size(source->size);
        StartWrite(&response_);
        const auto done = send(*source);
        // There may be one write at a time.
        std::unique_lock<std::mutex> lock(mutex_);
        written_.wait(lock, [this] { return metadata_written_; });
        return systemStatus("copy", done);
    }

    Result<> send(const CopySource& source) {
        ARCA_TRY(base::DataChannel channel, dial());
        return copyOut(source, channel,
                       request_.exact() ? archive::Fidelity::kExact : archive::Fidelity::kProtocol);
    }

    Result<base::DataChannel> dial() {
        ARCA_TRY(base::UniqueFd socket, state_.parts.host->dial(request_.vsock_port(), kDialLimit));
        return base::DataChannel(std::move(socket), stop_);
    }

    RpcState& state_;
    const wire::CopyRequest request_;
    base::StopSignal stop_;
    wire::CopyResponse response_;
    std::mutex mutex_;
    std::condition_variable written_;
    bool metadata_written_ = false;  // guarded by mutex_
};

}  // namespace

grpc::ServerWriteReactor<wire::CopyResponse>* ContextService::Copy(
    CallbackServerContext*, const wire::CopyRequest* request) {
    return new CopyReactor(state_, *request);
}

}  // namespace arca::vminitd

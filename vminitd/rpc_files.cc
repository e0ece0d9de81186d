// SandboxContext: mounts and single files.
#include <unistd.h>

#include "vminitd/agent_files.h"
#include "vminitd/mounting.h"
#include "vminitd/rpc_context.h"
#include "vminitd/rpc_status.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using grpc::Status;
using grpc::StatusCode;

ServerUnaryReactor* ContextService::Mount(CallbackServerContext* context,
                                          const wire::MountRequest* request, wire::MountResponse*) {
    const auto work = [this, request] {
        auto destination = pathOf(request->destination());
        if (!destination) return systemStatus("mount", destination.error());
        const MountSurroundings surroundings{
            .containers = parts_.containers,
            .pause = [this](std::chrono::milliseconds time) { return state_.mounts.pause(time); },
            .rescan = rescanPci};
        return systemStatus(
            "mount", mountAt({.type = request->type(),
                              .source = request->source(),
                              .destination = std::move(*destination),
                              .options = {request->options().begin(), request->options().end()}},
                             surroundings));
    };
    return onMachine(
        context, state_.mounts, "mount", work,
        driversForMount(request->type(), {request->options().begin(), request->options().end()}));
}

ServerUnaryReactor* ContextService::Umount(CallbackServerContext* context,
                                           const wire::UmountRequest* request,
                                           wire::UmountResponse*) {
    const auto work = [this, request] {
        const auto path = pathOf(request->path());
        if (!path) return systemStatus("umount", path.error());
        const auto pause = [this](std::chrono::milliseconds time) {
            return state_.mounts.pause(time);
        };
        return systemStatus("umount", umountAt(*path, request->flags(), pause));
    };
    return onMachine(context, state_.mounts, "umount", work, {DriverNeed::Kind::kNone});
}

ServerUnaryReactor* ContextService::Mkdir(CallbackServerContext* context,
                                          const wire::MkdirRequest* request, wire::MkdirResponse*) {
    return onWorker(context, state_.files, [this, request] {
        const auto path = pathOf(request->path());
        if (!path) return systemStatus("mkdir", path.error());
        return systemStatus("mkdir", makeDirectory(*path, request->all(), request->perms()));
    });
}

ServerUnaryReactor* ContextService::WriteFile(CallbackServerContext* context,
                                              const wire::WriteFileRequest* request,
                                              wire::WriteFileResponse*) {
    return onWorker(context, state_.files, [this, request] {
        const auto path = pathOf(request->path());
        if (!path) return systemStatus("writeFile", path.error());
        const auto& flags = request->flags();
        return systemStatus("writeFile",
                            writeFile(*path, {.data = request->data(),
                                              .mode = request->mode(),
                                              .create_parent_dirs = flags.create_parent_dirs(),
                                              .append = flags.append(),
                                              .create_if_missing = flags.create_if_missing()}));
    });
}

namespace {

void fillStat(const struct stat& from, wire::Stat& to) {
    to.set_dev(from.st_dev);
    to.set_ino(from.st_ino);
    to.set_mode(from.st_mode);
    to.set_nlink(from.st_nlink);
    to.set_uid(from.st_uid);
    to.set_gid(from.st_gid);
    to.set_rdev(from.st_rdev);
    to.set_size(from.st_size);
    to.set_blksize(from.st_blksize);
    to.set_blocks(from.st_blocks);
    setTime(*to.mutable_atime(), from.st_atim.tv_sec, from.st_atim.tv_nsec);
    setTime(*to.mutable_mtime(), from.st_mtim.tv_sec, from.st_mtim.tv_nsec);
    setTime(*to.mutable_ctime(), from.st_ctim.tv_sec, from.st_ctim.tv_nsec);
}

}  // namespace

ServerUnaryReactor* ContextService::Stat(CallbackServerContext* context,
                                         const wire::StatRequest* request,
                                         wire::StatResponse* response) {
    return onWorker(context, state_.files, [this, request, response] {
        const auto path = pathOf(request->path());
        if (!path) return systemStatus("stat", path.error());
        const auto st = statFile(*path);
        if (st) {
            fillStat(*st, *response->mutable_stat());
            return Status::OK;
        }
        if (st.error().code() == Code::kNotFound) {
            return Status(StatusCode::NOT_FOUND, "stat: path not found '" + request->path() + "'");
        }
        response->set_error(st.error().message());
        return Status::OK;
    });
}

ServerUnaryReactor* ContextService::FilesystemOperation(
    CallbackServerContext* context, const wire::FilesystemOperationRequest* request,
    wire::FilesystemOperationResponse* response) {
    static constexpr char kName[] = "filesystemOperation";
    return onMachine(context, state_.thaws, kName, [this, request, response] {
        using Request = wire::FilesystemOperationRequest;
        FilesystemAction action = FilesystemAction::kTrim;
        switch (request->operation_case()) {
            case Request::kTrim:
                if (!request->trim().has_one_shot()) {
                    return Status(StatusCode::INVALID_ARGUMENT,
                                  "filesystemOperation: trim without a schedule");
                }
                break;
            case Request::kFreeze:
                action = FilesystemAction::kFreeze;
                break;
            case Request::kThaw:
                action = FilesystemAction::kThaw;
                break;
            case Request::OPERATION_NOT_SET:
                return Status(StatusCode::INVALID_ARGUMENT,
                              "filesystemOperation: no operation is given");
        }
        const auto path = pathOf(request->path());
        if (!path) return systemStatus(kName, path.error());
        const auto done = filesystemOperation(*path, action);
        if (!done && done.error().code() == Code::kNotFound) {
            return Status(StatusCode::NOT_FOUND,
                          std::string(kName) + ": " + done.error().message());
        }
        if (!done) return systemStatus(kName, done.error());
        if (action == FilesystemAction::kTrim) {
            response->mutable_trim()->set_trimmed_bytes(*done);
        }
        return Status::OK;
    });
}

ServerUnaryReactor* ContextService::Sync(CallbackServerContext* context, const wire::SyncRequest*,
                                         wire::SyncResponse*) {
    return onWorker(context, state_.files, [] {
        ::sync();
        return Status::OK;
    });
}

}  // namespace arca::vminitd

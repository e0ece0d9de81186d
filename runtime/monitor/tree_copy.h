// A tree of the host's on its way into a guest that shares no file system: the protocol's Copy.
//
// The guest dials a port of ours and unpacks what comes; a thread of the copy's own packs and
// writes, as fast as the guest reads. Everything else happens on the loop.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "archive/archive.h"
#include "base/data_channel.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "runtime/monitor/grpc_channel.h"
#include "sandbox_context.pb.h"

namespace arca::runtime {

struct TreeCopyRequest {
    base::UniqueFd tree;     // a detached mount of a folder or of a regular file
    std::string guest_path;  // the folder that it becomes; of a file, the folder that it is in
    archive::Fidelity fidelity = archive::Fidelity::kExact;
    archive::Limits limits;
};

class TreeCopy : public std::enable_shared_from_this<TreeCopy> {
 public:
    struct Surroundings {
        base::EventLoop& loop;
        base::Transport& transport;
        GrpcChannel& channel;
        std::function<std::optional<uint32_t>()> next_port;
        // For the guest to dial, to take the next bytes, and to answer when it has them all.
        std::chrono::milliseconds patience;
    };
    // Called once, from the loop and never from inside start(), when neither side works on it any
    // more, or the guest has had its time.
    using Done = std::function<void(base::Result<archive::Packed>)>;

    TreeCopy(Surroundings around, TreeCopyRequest request, Done done);
    ~TreeCopy();

    // After an error `done` is not called.
    base::Result<> start();
    // Breaks it off; `done` is called all the same, soon.
    void abort();

 private:
    using Answer = base::Result<com::apple::containerization::sandbox::v3::CopyResponse>;

    void call();
    void accept();
    void send(base::UniqueFd connection);
    base::Result<archive::Packed> pack(base::DataChannel& channel) const;
    void sent(base::Result<archive::Packed> packed);
    void answered(const Answer& answer);
    void startTimer(std::chrono::milliseconds limit, const char* what);
    void checkOver();

    Surroundings around_;
    TreeCopyRequest request_;
    Done done_;
    uint32_t port_ = 0;
    std::unique_ptr<base::Listener> listener_;
    base::Watch accept_watch_;
    base::Timer timer_;
    base::StopSignal stop_;
    std::thread sender_;
    std::optional<base::Result<archive::Packed>> sent_;
    std::optional<base::Result<>> answered_;
    bool aborted_ = false;
};

}  // namespace arca::runtime

// One process of a guest as the monitor has it: its streams, its stand-in, the wait for its end.
//
// Loop thread only. Owned by the Monitor until over().
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/pump.h"
#include "base/result.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "proto/lease_protocol.h"
#include "runtime/monitor/grpc_channel.h"

namespace arca::runtime {

struct GuestProcessRequest {
    std::string container;
    std::string process;
    bool terminal = false;
    base::UniqueFd lease;                          // the monitor's end
    std::array<base::UniqueFd, 3> streams;         // terminal: the slave at [0]
    std::array<std::optional<uint32_t>, 3> ports;  // filled by listen()
};

class GuestProcess : public std::enable_shared_from_this<GuestProcess> {
 public:
    struct Surroundings {
        base::EventLoop& loop;
        base::Transport& transport;
        std::function<GrpcChannel*()> channel;               // nullptr: the sandbox is lost
        std::function<std::optional<uint32_t>()> next_port;  // a port to try
        std::function<void(const std::string& why)> lose;    // the guest does not do its part
        std::function<void(GuestProcess&)> over;             // nothing of it is left here
    };
    GuestProcess(Surroundings around, GuestProcessRequest request);

    [[nodiscard]] const std::string& container() const { return request_.container; }
    [[nodiscard]] const std::string& process() const { return request_.process; }
    [[nodiscard]] bool isInit() const { return request_.container == request_.process; }
    [[nodiscard]] bool committed() const { return committed_; }
    [[nodiscard]] const GuestProcessRequest& request() const { return request_; }

    // Listens for the guest's streams; their ports stand in request() then.
    base::Result<> listen();
    // The guest has made it: watches the lease and waits for its end.
    void commit();
    // It was not made: everything ends.
    void abort();
    // The guest has nothing more to say: what has come is passed on, and the streams end.
    void finishStreams();
    // The sandbox is gone: the stand-in is told.
    void lost();

 private:
    base::Result<> listenOn(size_t stream);
    void accept(size_t stream);
    void connectStream(size_t stream, base::UniqueFd connection);
    void pumpEnded(size_t stream, size_t lost_bytes);
    void leaseReady();
    void leaseEnded();
    void passSignal(int signal_number);
    void passSize(uint32_t rows, uint32_t columns);
    void waitForExit();
    void exited(int code);
    // Tells the exit once the output has been passed on, or its reader was given time.
    void report(bool patience_over);
    void tell(proto::LeaseMessage type, uint32_t value);
    [[nodiscard]] bool outputEnded() const;
    void checkOver();

    Surroundings around_;
    GuestProcessRequest request_;
    std::array<std::unique_ptr<base::Listener>, 3> listeners_;
    std::array<base::Watch, 3> accepts_;
    std::array<std::shared_ptr<base::Pump>, 3> pumps_;
    base::Watch lease_watch_;
    base::Timer timer_;
    bool committed_ = false;
    bool reported_ = false;
    bool over_ = false;
    std::optional<int> exit_code_;
};

}  // namespace arca::runtime

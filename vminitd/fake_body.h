// A body for tests: plays vmexec's part of the conversation with a child that only sleeps.
//
// Needs no root. The thread that plays ends with the conversation; the child is killed and reaped.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/process.h"
#include "base/socket.h"
#include "proto/body_protocol.h"
#include "vminitd/body.h"

namespace arca::vminitd {

// What the played process does.
struct FakeBehaviour {
    std::string fail_before_pid;  // text of a kFailure instead of kPid
    std::string fail_setup;       // instead of kReady
    std::string fail_start;       // at the gate
    bool vanish_after_pid = false;
};

class FakeBody {
 public:
    FakeBody(FakeBehaviour behaviour, base::UniqueFd sync)
        : behaviour_(std::move(behaviour)), sync_(std::move(sync)), thread_([this] { play(); }) {}
    ~FakeBody() {
        // A gate that nobody opened, or a conversation that was never begun.
        stop_ = true;
        thread_.join();
        reap();
    }

    // Ends the child with `signal_number` and reaps it, as the caller's shim would.
    void endChild(int signal_number) {
        if (child_ > 0) (void)::kill(child_, signal_number);
        reap();
    }
    [[nodiscard]] pid_t child() const { return child_; }
    [[nodiscard]] const std::string& plan() const { return plan_; }

 private:
    void reap() {
        const pid_t child = child_.exchange(0);
        if (child <= 0) return;
        (void)::kill(child, SIGKILL);
        (void)::waitpid(child, nullptr, 0);
    }

    bool send(int fd, proto::BodyMessage type, int32_t value = 0, const std::string& text = {}) {
        return base::sendMessage(fd, proto::encodeBodyMessage(type, value, text)).has_value();
    }
    std::optional<base::Message> receive(int fd) {
        auto message = base::receiveMessage(fd);
        return message ? std::move(*message) : std::nullopt;
    }

    void play() {
        using proto::BodyMessage;
        while (!base::waitReadable(sync_.get(), std::chrono::milliseconds(20)).value_or(false)) {
            if (stop_) return;
        }
        auto plan = receive(sync_.get());
        if (!plan || plan->fds.size() != 2) return;
        plan_ = base::readAll(plan->fds[0].get(), size_t{1} << 24U).value_or("");
        base::UniqueFd gate = std::move(plan->fds[1]);
        if (!behaviour_.fail_before_pid.empty()) {
            send(sync_.get(), BodyMessage::kFailure, 0, behaviour_.fail_before_pid);
            return;
        }
        const pid_t pid = ::fork();
        if (pid == 0) {
            // Nothing of the test's descriptors may live on in it.
            (void)base::closeOnExecFrom(0);
            ::execl("/bin/sleep", "sleep", "60", nullptr);
            ::_exit(127);
        }
        child_ = pid;
        if (!send(sync_.get(), BodyMessage::kPid, pid) || !receive(sync_.get())) return;
        if (behaviour_.vanish_after_pid) return sync_.reset();
        if (!behaviour_.fail_setup.empty()) {
            send(sync_.get(), BodyMessage::kFailure, ENOENT, behaviour_.fail_setup);
            return;
        }
        if (!send(sync_.get(), BodyMessage::kReady) || !receive(sync_.get())) return;
        sync_.reset();
        while (true) {
            if (stop_) return;
            if (!base::waitReadable(gate.get(), std::chrono::milliseconds(20)).value_or(false)) {
                continue;
            }
            const base::UniqueFd caller(::accept4(gate.get(), nullptr, nullptr, SOCK_CLOEXEC));
            const auto start = receive(caller.get());
            if (!start) continue;
            start_ = start->data;
            if (!behaviour_.fail_start.empty()) {
                send(caller.get(), BodyMessage::kFailure, 0, behaviour_.fail_start);
            }
            return;
        }
    }

    FakeBehaviour behaviour_;
    base::UniqueFd sync_;
    std::string plan_;
    std::string start_;
    std::atomic<pid_t> child_{0};
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace arca::vminitd

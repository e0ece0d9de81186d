// One virtual machine: QEMU, the file server and the vsock device that belong to it.
//
// All three are children of the monitor's main thread and are killed with it; when one of them
// ends, the machine has failed. Loop thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/monitor/config.h"
#include "runtime/monitor/kernel_vsock.h"
#include "runtime/monitor/network_card.h"
#include "runtime/monitor/spawn.h"

namespace arca::runtime {

class Machine {
 public:
    // Called once, by a task, when a part of the machine has ended without being asked to. The text
    // names it and how it ended, with the last lines of the console.
    using Failed = std::function<void(std::string why)>;

    // Starts it. `dir_fd`: the sandbox's folder, where the vsock socket and console.log go;
    // `served`: the directory for the guest, where `config` has it share one.
    struct Devices {
        const KernelVsock* vsock;  // the kernel's device; null: arca-vsock plays one
        const NetworkCard* card;   // null: none
    };
    // What is in `devices` must outlive the machine.
    static base::Result<std::unique_ptr<Machine>> start(base::EventLoop& loop,
                                                        const MonitorConfig& config, int dir_fd,
                                                        const std::string& served,
                                                        const Devices& devices, Failed failed);
    ~Machine();  // kills what still runs
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    // Ends everything and calls `done` once nothing of it is left.
    void stop(std::function<void()> done);

    // What the guest's kernel and agent wrote last, in one line.
    [[nodiscard]] std::string lastWords() const;

 private:
    struct Part {
        const char* name;
        Helper helper;
        base::Watch watch;
    };
    Machine(base::EventLoop& loop, Failed failed);
    base::Result<> startParts(const MonitorConfig& config, int dir_fd, const std::string& served,
                              const Devices& devices);
    // Gives QEMU's end.
    base::Result<base::UniqueFd> startVsock(const MonitorConfig& config, int dir_fd);
    base::Result<base::UniqueFd> startFileServer(const MonitorConfig& config, int dir_fd,
                                                 const std::string& served);
    base::Result<> launch(const char* name, const HelperProgram& program);
    base::Result<> openConsole(int dir_fd);
    void readConsole();
    void ended(Part& part);
    void report(std::string why);

    base::EventLoop& loop_;
    Failed failed_;
    std::function<void()> stopped_;
    bool stopping_ = false;
    base::Timer follows_;  // a part that serves QEMU has left in order
    std::vector<std::unique_ptr<Part>> parts_;
    base::UniqueFd console_;        // what the programs write, read end
    base::UniqueFd console_write_;  // until they have it
    base::UniqueFd console_log_;
    base::Watch console_watch_;
    std::string console_tail_;
    size_t console_bytes_ = 0;
};

}  // namespace arca::runtime

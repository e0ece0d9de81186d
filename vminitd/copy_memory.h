// Room for the files that the agent unpacks in a VM.
//
// The agent's own cgroup has a soft limit, beyond which the kernel slows it down. What it writes to
// a tmpfs, such as a root file system in /run, is charged to the same cgroup and stays there: it
// must not count as the agent's. Any thread.
#pragma once

#include <mutex>
#include <string>

namespace arca::vminitd {

class CopyMemory {
 public:
    // `cgroup`: the agent's, with memory.high and memory.stat; empty: no VM, nothing is limited.
    explicit CopyMemory(std::string cgroup) : cgroup_(std::move(cgroup)) {}

    // While there is one, nothing is limited; with the last one's end the limit comes back, above
    // what lies in tmpfs files by then.
    class Use {
     public:
        explicit Use(CopyMemory& memory) : memory_(memory) { memory_.begin(); }
        ~Use() { memory_.end(); }
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;

     private:
        CopyMemory& memory_;
    };

 private:
    void begin();
    void end();
    void limit(const std::string& value) const;

    std::string cgroup_;
    std::mutex mutex_;
    int users_ = 0;  // guarded by mutex_
};

}  // namespace arca::vminitd

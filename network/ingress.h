// Keeps what comes in on an interface from its network namespace's own protocol stack.
//
// For an interface whose frames belong to a guest: the addresses stay on it, where engines look for
// them, but this kernel no longer answers for them. Packet sockets (packet(7)) still see every
// frame, as they come before this. A BPF classifier on the interface's ingress hook (tc-bpf(8)).
#pragma once

#include <memory>

#include "base/result.h"

struct nl_sock;

namespace arca::network {

class IngressBlock {
 public:
    // Acts in the calling thread's network namespace. One that a killed program has left on the
    // interface is replaced. kUnsupported: the kernel has no clsact, or no BPF classifier.
    static base::Result<IngressBlock> make(unsigned interface_index);
    IngressBlock() = default;  // blocks nothing
    // Takes it away again, from whatever namespace the thread is in.
    ~IngressBlock();
    IngressBlock(IngressBlock&& other) noexcept;
    IngressBlock& operator=(IngressBlock&& other) noexcept;

 private:
    IngressBlock(std::shared_ptr<nl_sock> socket, int index, bool made_qdisc);
    void remove() noexcept;

    std::shared_ptr<nl_sock> socket_;  // of the interface's namespace; null: nothing to take away
    int index_ = 0;
    bool made_qdisc_ = false;
};

}  // namespace arca::network

// What becomes of the frames that come in on an interface, instead of going to its network
// namespace's own protocol stack.
//
// For an interface whose frames belong to a guest: the addresses stay on it, where engines look for
// them, but this kernel no longer answers for them. Packet sockets (packet(7)) still see every
// frame, as they come before this. A BPF classifier on the interface's ingress hook (tc-bpf(8)).
#pragma once

#include <memory>

#include "base/result.h"

struct nl_sock;

namespace arca::network {

class IngressRule {
 public:
    // Both act in the calling thread's network namespace. A rule that a killed program has left on
    // the interface is replaced. kUnsupported: the kernel has no clsact, or no BPF classifier.
    static base::Result<IngressRule> drop(unsigned interface_index);
    // They leave over the interface `target` of the same namespace; dropped when there is none.
    // What the namespace itself has asked for still reaches it: UDP datagrams (IPv4) for a socket
    // of its own, and answers of ARP, which go both ways. Not so on kernels before 4.20.
    static base::Result<IngressRule> redirect(unsigned interface_index, unsigned target);
    IngressRule() = default;  // changes nothing
    // Takes it away again, from whatever namespace the thread is in.
    ~IngressRule();
    IngressRule(IngressRule&& other) noexcept;
    IngressRule& operator=(IngressRule&& other) noexcept;

 private:
    IngressRule(std::shared_ptr<nl_sock> socket, int index, bool made_qdisc);
    static base::Result<IngressRule> make(int index, int program);
    void remove() noexcept;

    std::shared_ptr<nl_sock> socket_;  // of the interface's namespace; null: nothing to take away
    int index_ = 0;
    bool made_qdisc_ = false;
};

}  // namespace arca::network

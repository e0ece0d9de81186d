#include "network/ingress.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bpf.h"
#include "base/unique_fd.h"
#include "network/rtnl.h"

namespace arca::network {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// Of our filter, so that it is found again. The first to be asked.
constexpr uint32_t kPriority = 1;
constexpr uint32_t kHandle = 1;
constexpr char kName[] = "arca-guest";

constexpr int kContext = BPF_REG_6;  // where the program keeps its argument
// The frame's parts, as the program finds them.
constexpr int kArpOperation = ETH_HLEN + 6;
constexpr int kIpHeader = ETH_HLEN;
constexpr int kIpProtocol = 9;    // from there
constexpr int kIpFragment = 6;    // flags and offset
constexpr int kIpAddresses = 12;  // source, destination
constexpr int kPlainIp = 0x45;    // version 4, no options
constexpr int kUdpPorts = kIpHeader + 20;
// The stack: the IP header, and behind its addresses the ports, which together are what the kernel
// looks a socket up by.
constexpr int kStackIp = -24;
constexpr int kTuple = kStackIp + kIpAddresses;
constexpr int kTuplePorts = kTuple + 8;
constexpr int kTupleBytes = 12;
constexpr uint16_t kFragmentBits = 0x3fff;  // "more", and the offset

// A program in the making, whose jumps go forwards to labels.
class Program {
 public:
    enum Label { kArp, kPass, kRedirect, kLabels };

    void add(unsigned code, int destination, int source, int offset, int immediate) {
        instructions_.push_back(base::bpfInstruction(code, static_cast<uint8_t>(destination),
                                                     static_cast<uint8_t>(source),
                                                     static_cast<int16_t>(offset), immediate));
    }
    void set(int target, int immediate) {
        add(BPF_ALU64 | BPF_MOV | BPF_K, target, 0, 0, immediate);
    }
    void copy(int target, int source) { add(BPF_ALU64 | BPF_MOV | BPF_X, target, source, 0, 0); }
    void call(int function) { add(BPF_JMP | BPF_CALL, 0, 0, 0, function); }
    void jump(unsigned condition, int left, int right, Label to) {
        jumps_.push_back({instructions_.size(), to});
        add(BPF_JMP | condition | BPF_K, left, 0, 0, right);
    }
    // Loads `size` bytes of the frame at `from` to the stack; `otherwise`: it is shorter.
    void loadBytes(int from, int to_stack, int size, Label otherwise) {
        copy(BPF_REG_1, kContext);
        set(BPF_REG_2, from);
        copy(BPF_REG_3, BPF_REG_10);
        add(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_3, 0, 0, to_stack);
        set(BPF_REG_4, size);
        call(BPF_FUNC_skb_load_bytes);
        jump(BPF_JNE, BPF_REG_0, 0, otherwise);
    }
    void loadStack(unsigned size, int at) {
        add(BPF_LDX | size | BPF_MEM, BPF_REG_1, BPF_REG_10, at, 0);
    }
    void leave() { add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }
    void place(Label label) { places_[label] = instructions_.size(); }

    // Has the kernel check and load it.
    Result<UniqueFd> load() {
        for (const Jump& jump : jumps_) {
            instructions_[jump.at].off = static_cast<int16_t>(places_[jump.to] - jump.at - 1);
        }
        return base::loadBpf(BPF_PROG_TYPE_SCHED_CLS, instructions_, "load a packet filter");
    }

 private:
    struct Jump {
        size_t at;
        Label to;
    };
    std::vector<bpf_insn> instructions_;
    std::vector<Jump> jumps_;
    std::array<size_t, kLabels> places_{};
};

// IPv4 datagrams for a socket of this namespace pass; then ARP's answers.
void addExceptions(Program& program, int target) {
    program.add(BPF_LDX | BPF_W | BPF_MEM, BPF_REG_1, kContext, offsetof(__sk_buff, protocol), 0);
    program.jump(BPF_JEQ, BPF_REG_1, htons(ETH_P_ARP), Program::kArp);
    program.jump(BPF_JNE, BPF_REG_1, htons(ETH_P_IP), Program::kRedirect);
    program.loadBytes(kIpHeader, kStackIp, kUdpPorts - kIpHeader, Program::kRedirect);
    program.loadStack(BPF_B, kStackIp);
    program.jump(BPF_JNE, BPF_REG_1, kPlainIp, Program::kRedirect);
    program.loadStack(BPF_B, kStackIp + kIpProtocol);
    program.jump(BPF_JNE, BPF_REG_1, IPPROTO_UDP, Program::kRedirect);
    program.loadStack(BPF_H, kStackIp + kIpFragment);
    program.jump(BPF_JSET, BPF_REG_1, htons(kFragmentBits), Program::kRedirect);
    program.loadBytes(kUdpPorts, kTuplePorts, 4, Program::kRedirect);
    program.copy(BPF_REG_1, kContext);
    program.copy(BPF_REG_2, BPF_REG_10);
    program.add(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, kTuple);
    program.set(BPF_REG_3, kTupleBytes);
    program.set(BPF_REG_4, BPF_F_CURRENT_NETNS);
    program.set(BPF_REG_5, 0);
    program.call(BPF_FUNC_sk_lookup_udp);
    program.jump(BPF_JEQ, BPF_REG_0, 0, Program::kRedirect);
    program.copy(BPF_REG_1, BPF_REG_0);
    program.call(BPF_FUNC_sk_release);
    program.jump(BPF_JA, 0, 0, Program::kPass);

    program.place(Program::kArp);
    program.loadBytes(kArpOperation, kStackIp, sizeof(uint16_t), Program::kRedirect);
    program.loadStack(BPF_H, kStackIp);
    program.jump(BPF_JNE, BPF_REG_1, htons(ARPOP_REPLY), Program::kRedirect);
    program.copy(BPF_REG_1, kContext);
    program.set(BPF_REG_2, target);
    program.set(BPF_REG_3, 0);
    program.call(BPF_FUNC_clone_redirect);
    program.place(Program::kPass);
    program.set(BPF_REG_0, TC_ACT_OK);
    program.leave();
}

// "return TC_ACT_SHOT".
Result<UniqueFd> loadDrop() {
    Program program;
    program.set(BPF_REG_0, TC_ACT_SHOT);
    program.leave();
    return program.load();
}

enum class Exceptions { kNone, kOwn };

// "return bpf_redirect(target, 0)", after the exceptions.
Result<UniqueFd> loadRedirect(unsigned target, Exceptions exceptions) {
    Program program;
    const auto index = static_cast<int>(target);
    program.copy(kContext, BPF_REG_1);
    if (exceptions == Exceptions::kOwn) addExceptions(program, index);
    program.place(Program::kRedirect);
    program.set(BPF_REG_1, index);
    program.set(BPF_REG_2, 0);
    program.call(BPF_FUNC_redirect);
    program.leave();
    return program.load();
}

struct Target {
    uint32_t handle;
    uint32_t parent;
    uint32_t info;
};
constexpr Target kQdisc{TC_H_MAKE(TC_H_CLSACT, 0U), TC_H_CLSACT, 0};

Target filterTarget() {
    constexpr uint32_t kShift = 16;
    const uint32_t protocol = (ETH_P_ALL & 0xffU) << 8U | ETH_P_ALL >> 8U;  // network byte order
    return {kHandle, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), kPriority << kShift | protocol};
}

// `kind`: of the qdisc or filter; `program`: of a filter that is added, -1 otherwise.
Result<> request(nl_sock* socket, int type, int flags, int index, const Target& target,
                 const char* kind, int program, const std::string& what) {
    const Message message(nlmsg_alloc_simple(type, flags));
    if (!message) return failErrno(what, ENOMEM);
    tcmsg header{};
    header.tcm_ifindex = index;
    header.tcm_handle = target.handle;
    header.tcm_parent = target.parent;
    header.tcm_info = target.info;
    int error = nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO);
    if (error >= 0) error = nla_put_string(message.get(), TCA_KIND, kind);
    if (error >= 0 && program >= 0) {
        nlattr* options = nla_nest_start(message.get(), TCA_OPTIONS);
        error = options == nullptr ? -NLE_NOMEM : 0;
        if (error >= 0) {
            error = nla_put_u32(message.get(), TCA_BPF_FD, static_cast<uint32_t>(program));
        }
        if (error >= 0) error = nla_put_string(message.get(), TCA_BPF_NAME, kName);
        if (error >= 0) {
            error = nla_put_u32(message.get(), TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
        }
        if (error >= 0) nla_nest_end(message.get(), options);
    }
    if (error < 0) return failNetlink(what, error);
    return ask(socket, message.get(), what);
}

// The kernel's answer where it lacks the scheduler or the classifier.
Result<> explained(Result<> done, const char* missing) {
    if (done) return done;
    const int error = done.error().sysErrno();
    if (error != ENOENT && error != EOPNOTSUPP) return done;
    return fail(Code::kUnsupported, done.error().message() + ": the kernel has no " + missing);
}

}  // namespace

IngressRule::IngressRule(std::shared_ptr<nl_sock> socket, int index, bool made_qdisc)
    : socket_(std::move(socket)), index_(index), made_qdisc_(made_qdisc) {}

IngressRule::IngressRule(IngressRule&& other) noexcept
    : socket_(std::move(other.socket_)), index_(other.index_), made_qdisc_(other.made_qdisc_) {}

IngressRule& IngressRule::operator=(IngressRule&& other) noexcept {
    if (this == &other) return *this;
    remove();
    socket_ = std::move(other.socket_);
    index_ = other.index_;
    made_qdisc_ = other.made_qdisc_;
    return *this;
}

IngressRule::~IngressRule() {
    remove();
}

// The interface may be gone, and both with it.
void IngressRule::remove() noexcept {
    if (!socket_) return;
    (void)request(socket_.get(), RTM_DELTFILTER, 0, index_, filterTarget(), "bpf", -1, "");
    if (made_qdisc_) {
        (void)request(socket_.get(), RTM_DELQDISC, 0, index_, kQdisc, "clsact", -1, "");
    }
    socket_.reset();
}

Result<IngressRule> IngressRule::drop(unsigned interface_index) {
    ARCA_TRY(const UniqueFd program, loadDrop());
    return make(static_cast<int>(interface_index), program.get());
}

Result<IngressRule> IngressRule::redirect(unsigned interface_index, unsigned target) {
    auto program = loadRedirect(target, Exceptions::kOwn);
    if (!program) program = loadRedirect(target, Exceptions::kNone);
    if (!program) return fail(std::move(program).error());
    return make(static_cast<int>(interface_index), program->get());
}

Result<IngressRule> IngressRule::make(int index, int program) {
    const std::string what = "filter what comes in on interface " + std::to_string(index);
    ARCA_TRY(Socket opened, openNetlink());
    std::shared_ptr<nl_sock> socket(std::move(opened));
    auto made = request(socket.get(), RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, index, kQdisc,
                        "clsact", -1, what);
    const bool had_one = !made && made.error().sysErrno() == EEXIST;
    if (!had_one) ARCA_CHECK(explained(std::move(made), "clsact scheduler"));
    IngressRule rule(socket, index, !had_one);
    ARCA_CHECK(explained(request(socket.get(), RTM_NEWTFILTER, NLM_F_CREATE, index, filterTarget(),
                                 "bpf", program, what),
                         "BPF classifier"));
    return rule;
}

}  // namespace arca::network

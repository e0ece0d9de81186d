#include "network/ingress.h"

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

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
constexpr char kLoad[] = "load a packet filter";

// "return TC_ACT_SHOT".
Result<UniqueFd> loadDrop() {
    const std::array program{
        base::bpfInstruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, TC_ACT_SHOT),
        base::bpfInstruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)};
    return base::loadBpf(BPF_PROG_TYPE_SCHED_CLS, program, kLoad);
}

// "return bpf_redirect(target, 0)".
Result<UniqueFd> loadRedirect(unsigned target) {
    const std::array program{
        base::bpfInstruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0,
                             static_cast<int32_t>(target)),
        base::bpfInstruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, 0),
        base::bpfInstruction(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect),
        base::bpfInstruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)};
    return base::loadBpf(BPF_PROG_TYPE_SCHED_CLS, program, kLoad);
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
    ARCA_TRY(const UniqueFd program, loadRedirect(target));
    return make(static_cast<int>(interface_index), program.get());
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

#include "vminitd/seccomp_enosys.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>

namespace arca::vminitd {
namespace {

constexpr uint32_t kX32Bit = 0x40000000;

// Whether a call that no rule names is let through, perhaps by whoever traces the process.
bool letsThrough(const std::string& action) {
    return action == "SCMP_ACT_ALLOW" || action == "SCMP_ACT_LOG" || action == "SCMP_ACT_TRACE";
}

// The highest number among the calls that the profile names.
std::optional<uint32_t> highestCall(const spec::Seccomp& profile, uint32_t architecture) {
    std::optional<uint32_t> highest;
    for (const spec::SeccompSyscall& rule : profile.syscalls) {
        for (const std::string& name : rule.names) {
            // Negative: unknown, or one that this architecture has in another form.
            const int number = ::seccomp_syscall_resolve_name_arch(architecture, name.c_str());
            if (number < 0) continue;
            highest = std::max(highest.value_or(0), static_cast<uint32_t>(number));
        }
    }
    return highest;
}

// x86_64 and x32 are one architecture to the kernel, told apart by a bit of the number.
struct Limits {
    uint32_t audit_architecture = 0;
    std::optional<uint32_t> plain;
    std::optional<uint32_t> x32;
};

std::vector<Limits> limitsOf(const spec::Seccomp& profile,
                             const std::vector<uint32_t>& architectures) {
    std::vector<Limits> all;
    for (const uint32_t token : architectures) {
        const bool x32 = token == SCMP_ARCH_X32;
        const uint32_t audit = x32 ? AUDIT_ARCH_X86_64 : token;
        auto found = std::find_if(all.begin(), all.end(), [audit](const Limits& limits) {
            return limits.audit_architecture == audit;
        });
        if (found == all.end()) found = all.insert(all.end(), Limits{audit, {}, {}});
        (x32 ? found->x32 : found->plain) = highestCall(profile, token);
    }
    return all;
}

sock_filter statement(unsigned code, uint32_t k) {
    return {static_cast<uint16_t>(code), 0, 0, k};
}

sock_filter jump(unsigned code, uint32_t k, uint8_t yes, uint8_t no) {
    return {static_cast<uint16_t>(code), yes, no, k};
}

// Returns ENOSYS above `limit`; otherwise goes to what follows.
void refuseAbove(std::vector<sock_filter>& code, const std::optional<uint32_t>& limit) {
    if (!limit) return;
    code.push_back(jump(BPF_JMP | BPF_JGT | BPF_K, *limit, 0, 1));
    code.push_back(statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(ENOSYS)));
}

// With the number loaded, for one architecture.
std::vector<sock_filter> checks(const Limits& limits) {
    std::vector<sock_filter> code;
    if (limits.audit_architecture != AUDIT_ARCH_X86_64) {
        refuseAbove(code, limits.plain);
        return code;
    }
    std::vector<sock_filter> plain;
    std::vector<sock_filter> x32;
    refuseAbove(plain, limits.plain);
    if (limits.x32) refuseAbove(x32, *limits.x32 | kX32Bit);
    if (!x32.empty())
        plain.push_back(statement(BPF_JMP | BPF_JA, static_cast<uint32_t>(x32.size())));
    code.push_back(jump(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, static_cast<uint8_t>(plain.size()), 0));
    code.insert(code.end(), plain.begin(), plain.end());
    code.insert(code.end(), x32.begin(), x32.end());
    return code;
}

}  // namespace

std::string enosysPrefix(const spec::Seccomp& profile, const std::vector<uint32_t>& architectures) {
    if (letsThrough(profile.defaultAction) || profile.defaultErrnoRet == uint32_t{ENOSYS}) {
        return {};
    }
    std::vector<sock_filter> tail;  // from the last architecture to the first
    std::vector<Limits> all = limitsOf(profile, architectures);
    std::reverse(all.begin(), all.end());
    for (const Limits& limits : all) {
        if (!limits.plain && !limits.x32) continue;
        std::vector<sock_filter> section{
            statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
        const std::vector<sock_filter> checked = checks(limits);
        section.insert(section.end(), checked.begin(), checked.end());
        // Behind the whole prefix the filter begins.
        section.push_back(statement(BPF_JMP | BPF_JA, static_cast<uint32_t>(tail.size())));
        section.insert(section.begin(), jump(BPF_JMP | BPF_JEQ | BPF_K, limits.audit_architecture,
                                             0, static_cast<uint8_t>(section.size())));
        tail.insert(tail.begin(), section.begin(), section.end());
    }
    if (tail.empty()) return {};
    tail.insert(tail.begin(), statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)));
    return {reinterpret_cast<const char*>(tail.data()), tail.size() * sizeof(sock_filter)};
}

}  // namespace arca::vminitd

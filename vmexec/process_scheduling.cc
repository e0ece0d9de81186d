#include "vmexec/process_scheduling.h"

#include <linux/mempolicy.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/strings.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

namespace {

constexpr uint32_t kMaxBit = 65535;
constexpr unsigned kWordBits = 64;

struct Named {
    std::string_view name;
    uint64_t value;
};

template <size_t N>
Result<uint64_t> valueOf(const std::array<Named, N>& table, std::string_view name,
                         std::string_view what) {
    const auto* found = std::find_if(table.begin(), table.end(),
                                     [name](const Named& entry) { return entry.name == name; });
    if (found != table.end()) return found->value;
    return fail(Code::kInvalidArgument,
                std::string(what) + " \"" + base::printable(name) + "\" is not known");
}

constexpr std::array kPolicies = {Named{"SCHED_OTHER", 0},   Named{"SCHED_FIFO", 1},
                                  Named{"SCHED_RR", 2},      Named{"SCHED_BATCH", 3},
                                  Named{"SCHED_ISO", 4},     Named{"SCHED_IDLE", 5},
                                  Named{"SCHED_DEADLINE", 6}};
constexpr std::array kSchedFlags = {Named{"SCHED_FLAG_RESET_ON_FORK", SCHED_FLAG_RESET_ON_FORK},
                                    Named{"SCHED_FLAG_RECLAIM", SCHED_FLAG_RECLAIM},
                                    Named{"SCHED_FLAG_DL_OVERRUN", SCHED_FLAG_DL_OVERRUN},
                                    Named{"SCHED_FLAG_KEEP_POLICY", SCHED_FLAG_KEEP_POLICY},
                                    Named{"SCHED_FLAG_KEEP_PARAMS", SCHED_FLAG_KEEP_PARAMS},
                                    Named{"SCHED_FLAG_UTIL_CLAMP_MIN", SCHED_FLAG_UTIL_CLAMP_MIN},
                                    Named{"SCHED_FLAG_UTIL_CLAMP_MAX", SCHED_FLAG_UTIL_CLAMP_MAX}};
// Numbers, as for what is below: <linux/ioprio.h> of later headers is no C++. Source:
// ioprio_set(2).
constexpr std::array kIoClasses = {Named{"IOPRIO_CLASS_RT", 1}, Named{"IOPRIO_CLASS_BE", 2},
                                   Named{"IOPRIO_CLASS_IDLE", 3}};
constexpr int kIoClassShift = 13;
constexpr int kIoWhoProcess = 1;
// Numbers where Debian 12's headers end before the kernel does.
constexpr std::array kMemoryModes = {
    Named{"MPOL_DEFAULT", MPOL_DEFAULT}, Named{"MPOL_PREFERRED", MPOL_PREFERRED},
    Named{"MPOL_BIND", MPOL_BIND},       Named{"MPOL_INTERLEAVE", MPOL_INTERLEAVE},
    Named{"MPOL_LOCAL", MPOL_LOCAL},     Named{"MPOL_PREFERRED_MANY", 5},
    Named{"MPOL_WEIGHTED_INTERLEAVE", 6}};
constexpr std::array kMemoryFlags = {Named{"MPOL_F_STATIC_NODES", 1U << 15U},
                                     Named{"MPOL_F_RELATIVE_NODES", 1U << 14U},
                                     Named{"MPOL_F_NUMA_BALANCING", 1U << 13U}};

}  // namespace

Result<std::vector<uint64_t>> parseBitList(std::string_view text) {
    std::vector<uint64_t> words;
    for (const std::string_view raw : base::split(text, ',')) {
        const std::string_view part = base::trim(raw);
        const size_t dash = part.find('-');
        const auto first = base::parseNumber<uint32_t>(part.substr(0, dash));
        const auto last = dash == std::string_view::npos
                              ? first
                              : base::parseNumber<uint32_t>(part.substr(dash + 1));
        if (!first || !last || *first > *last || *last > kMaxBit) {
            return fail(Code::kInvalidArgument,
                        "\"" + base::printable(text) + "\" is no list of numbers and ranges");
        }
        if (words.size() <= *last / kWordBits) words.resize(*last / kWordBits + 1);
        for (uint32_t bit = *first; bit <= *last; ++bit)
            words[bit / kWordBits] |= 1ULL << (bit % kWordBits);
    }
    return words;
}

Result<> applyScheduler(const spec::Scheduler& scheduler) {
    sched_attr attr{};
    attr.size = sizeof attr;
    ARCA_TRY(const uint64_t policy, valueOf(kPolicies, scheduler.policy, "scheduling policy"));
    attr.sched_policy = static_cast<uint32_t>(policy);
    for (const std::string& flag : scheduler.flags) {
        ARCA_TRY(const uint64_t bit, valueOf(kSchedFlags, flag, "scheduling flag"));
        attr.sched_flags |= bit;
    }
    attr.sched_nice = scheduler.nice;
    attr.sched_priority = static_cast<uint32_t>(scheduler.priority);
    attr.sched_runtime = scheduler.runtime;
    attr.sched_deadline = scheduler.deadline;
    attr.sched_period = scheduler.period;
    if (::syscall(SYS_sched_setattr, 0, &attr, 0) != 0)
        return failErrno("set scheduler " + scheduler.policy);
    return {};
}

Result<> applyIoPriority(const spec::IoPriority& priority) {
    ARCA_TRY(const uint64_t io_class,
             valueOf(kIoClasses, priority.class_name, "I/O priority class"));
    const auto value = static_cast<int>(io_class << kIoClassShift) | priority.priority;
    if (::syscall(SYS_ioprio_set, kIoWhoProcess, 0, value) != 0)
        return failErrno("set I/O priority " + priority.class_name);
    return {};
}

Result<> applyMemoryPolicy(const spec::MemoryPolicy& policy) {
    ARCA_TRY(uint64_t mode, valueOf(kMemoryModes, policy.mode, "memory policy"));
    for (const std::string& flag : policy.flags) {
        ARCA_TRY(const uint64_t bit, valueOf(kMemoryFlags, flag, "memory policy flag"));
        mode |= bit;
    }
    std::vector<uint64_t> nodes;
    if (!policy.nodes.empty()) {
        ARCA_TRY(nodes, parseBitList(policy.nodes));
    }
    // The kernel reads one bit less than it is told.
    const size_t bits = nodes.empty() ? 0 : nodes.size() * kWordBits + 1;
    if (::syscall(SYS_set_mempolicy, mode, nodes.empty() ? nullptr : nodes.data(), bits) != 0)
        return failErrno("set memory policy " + policy.mode);
    return {};
}

Result<> applyCpuAffinity(std::string_view list) {
    if (base::trim(list).empty()) return {};
    auto words = parseBitList(list);
    if (!words) return fail(std::move(words).error().withContext("CPU affinity"));
    if (::syscall(SYS_sched_setaffinity, 0, words->size() * sizeof(uint64_t), words->data()) != 0)
        return failErrno("set CPU affinity to " + base::printable(list));
    return {};
}

}  // namespace arca::vmexec

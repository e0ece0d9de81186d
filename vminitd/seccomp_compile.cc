#include "vminitd/seccomp_compile.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "base/unique_fd.h"
#include "vminitd/seccomp_enosys.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5U)
#endif

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

struct ContextCloser {
    void operator()(scmp_filter_ctx context) const noexcept { ::seccomp_release(context); }
};
using Context = std::unique_ptr<void, ContextCloser>;

std::string quoted(const std::string& text) {
    return "\"" + base::printable(text) + "\"";
}

Result<uint32_t> actionOf(const std::string& name, std::optional<uint32_t> errno_ret) {
    const uint32_t value = errno_ret.value_or(EPERM);
    if (value > 0xffffU) return fail(Code::kInvalidArgument, "linux.seccomp: errnoRet too large");
    if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(value);
    if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(value);
    static const struct {
        const char* name;
        uint32_t action;
    } kActions[] = {
        {"SCMP_ACT_KILL", SCMP_ACT_KILL},
        {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
        {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
        {"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
        {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
        {"SCMP_ACT_LOG", SCMP_ACT_LOG},
        {"SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY},
    };
    for (const auto& known : kActions) {
        if (name != known.name) continue;
        if (errno_ret) {
            return fail(Code::kInvalidArgument, "linux.seccomp: errnoRet has no meaning with " +
                                                    name);
        }
        return known.action;
    }
    return fail(Code::kInvalidArgument, "linux.seccomp: unknown action " + quoted(name));
}

Result<scmp_compare> operatorOf(const std::string& name) {
    static const struct {
        const char* name;
        scmp_compare op;
    } kOperators[] = {
        {"SCMP_CMP_NE", SCMP_CMP_NE}, {"SCMP_CMP_LT", SCMP_CMP_LT},
        {"SCMP_CMP_LE", SCMP_CMP_LE}, {"SCMP_CMP_EQ", SCMP_CMP_EQ},
        {"SCMP_CMP_GE", SCMP_CMP_GE}, {"SCMP_CMP_GT", SCMP_CMP_GT},
        {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
    };
    for (const auto& known : kOperators) {
        if (name == known.name) return known.op;
    }
    return fail(Code::kInvalidArgument, "linux.seccomp: unknown operator " + quoted(name));
}

// The library's token of an architecture; 0 = known to the specification, not to this library.
Result<uint32_t> architectureOf(const std::string& name) {
    static const struct {
        const char* name;
        const char* library_name;
    } kArchitectures[] = {
        {"SCMP_ARCH_X86", "x86"},
        {"SCMP_ARCH_X86_64", "x86_64"},
        {"SCMP_ARCH_X32", "x32"},
        {"SCMP_ARCH_ARM", "arm"},
        {"SCMP_ARCH_AARCH64", "aarch64"},
        {"SCMP_ARCH_MIPS", "mips"},
        {"SCMP_ARCH_MIPS64", "mips64"},
        {"SCMP_ARCH_MIPS64N32", "mips64n32"},
        {"SCMP_ARCH_MIPSEL", "mipsel"},
        {"SCMP_ARCH_MIPSEL64", "mipsel64"},
        {"SCMP_ARCH_MIPSEL64N32", "mipsel64n32"},
        {"SCMP_ARCH_PPC", "ppc"},
        {"SCMP_ARCH_PPC64", "ppc64"},
        {"SCMP_ARCH_PPC64LE", "ppc64le"},
        {"SCMP_ARCH_S390", "s390"},
        {"SCMP_ARCH_S390X", "s390x"},
        {"SCMP_ARCH_PARISC", "parisc"},
        {"SCMP_ARCH_PARISC64", "parisc64"},
        {"SCMP_ARCH_RISCV64", "riscv64"},
        {"SCMP_ARCH_LOONGARCH64", "loongarch64"},
        {"SCMP_ARCH_M68K", "m68k"},
        {"SCMP_ARCH_SH", "sh"},
        {"SCMP_ARCH_SHEB", "sheb"},
    };
    for (const auto& known : kArchitectures) {
        if (name == known.name) return ::seccomp_arch_resolve_name(known.library_name);
    }
    return fail(Code::kInvalidArgument, "linux.seccomp: unknown architecture " + quoted(name));
}

bool kernelKnowsFlag(unsigned long flag) {
    // With a null program a known flag gives EFAULT, an unknown one EINVAL. Source: seccomp(2).
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flag, nullptr) == 0) return true;
    return errno == EFAULT;
}

Result<uint32_t> flagsOf(const spec::Seccomp& profile, bool notify) {
    unsigned long flags = 0;
    if (!profile.flags) {
        if (kernelKnowsFlag(SECCOMP_FILTER_FLAG_SPEC_ALLOW)) {
            flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        }
    } else {
        for (const std::string& name : *profile.flags) {
            if (name == "SECCOMP_FILTER_FLAG_TSYNC") {
                // The process has one thread; together with a listener the kernel refuses it.
                if (!notify) flags |= SECCOMP_FILTER_FLAG_TSYNC;
            } else if (name == "SECCOMP_FILTER_FLAG_LOG") {
                flags |= SECCOMP_FILTER_FLAG_LOG;
            } else if (name == "SECCOMP_FILTER_FLAG_SPEC_ALLOW") {
                flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
            } else if (name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") {
                // Only has a meaning, and is only accepted, together with a listener.
                if (notify) flags |= SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
            } else {
                return fail(Code::kInvalidArgument,
                            "linux.seccomp: unknown flag " + quoted(name));
            }
        }
    }
    return static_cast<uint32_t>(flags);
}

// Gives the tokens of those that are in the filter now.
Result<std::vector<uint32_t>> addArchitectures(scmp_filter_ctx context,
                                               const spec::Seccomp& profile) {
    std::vector<uint32_t> tokens;
    for (const std::string& name : profile.architectures) {
        ARCA_TRY(const uint32_t token, architectureOf(name));
        if (token == 0) {
            base::log::debug("seccomp architecture " + name + " is not known here, skipped");
            continue;
        }
        const int added = ::seccomp_arch_add(context, token);
        if (added == 0 || added == -EEXIST) {
            tokens.push_back(token);
            continue;
        }
        if (added == -EDOM) {
            base::log::debug("seccomp architecture " + name + " has another byte order, skipped");
            continue;
        }
        return failErrno("linux.seccomp: add architecture " + name, -added);
    }
    return tokens;
}

// One rule of a system call; several conditions on one argument become rules of their own, which
// the library cannot hold together. Source: runc, matchCall().
Result<> addRules(scmp_filter_ctx context, uint32_t action, int number, const std::string& name,
                  const std::vector<scmp_arg_cmp>& conditions) {
    const auto add = [&](const std::vector<scmp_arg_cmp>& some) -> Result<> {
        const int added = ::seccomp_rule_add_array(
            context, action, number, static_cast<unsigned>(some.size()), some.data());
        if (added == 0 || added == -EEXIST) return {};
        // An architecture of the filter does not have this call: nothing to filter there.
        if (added == -EDOM || added == -EOPNOTSUPP) {
            base::log::debug("seccomp rule for " + name + " skipped on some architecture");
            return {};
        }
        return failErrno("linux.seccomp: add a rule for " + name, -added);
    };
    std::array<int, 6> uses{};
    bool split = false;
    for (const scmp_arg_cmp& condition : conditions) split = ++uses[condition.arg] > 1 || split;
    if (!split) return add(conditions);
    for (const scmp_arg_cmp& condition : conditions) ARCA_CHECK(add({condition}));
    return {};
}

Result<> addSyscalls(scmp_filter_ctx context, const spec::Seccomp& profile,
                     uint32_t default_action, bool& notify) {
    for (const spec::SeccompSyscall& rule : profile.syscalls) {
        if (rule.names.empty()) {
            return fail(Code::kInvalidArgument, "linux.seccomp.syscalls: names must not be empty");
        }
        ARCA_TRY(const uint32_t action, actionOf(rule.action, rule.errnoRet));
        if (action == SCMP_ACT_NOTIFY) notify = true;
        std::vector<scmp_arg_cmp> conditions;
        for (const spec::SeccompArg& arg : rule.args) {
            if (arg.index > 5) {
                return fail(Code::kInvalidArgument,
                            "linux.seccomp.syscalls.args: index must be 0..5");
            }
            ARCA_TRY(const scmp_compare op, operatorOf(arg.op));
            conditions.push_back(scmp_arg_cmp{arg.index, op, arg.value, arg.valueTwo});
        }
        // A rule that does what happens anyway; the library refuses it.
        const bool redundant = action == default_action;
        for (const std::string& name : rule.names) {
            if (action == SCMP_ACT_NOTIFY && name == "write") {
                // The hand-over of the listener itself needs write.
                return fail(Code::kInvalidArgument,
                            "linux.seccomp: SCMP_ACT_NOTIFY cannot be used for write");
            }
            if (redundant) continue;
            const int number = ::seccomp_syscall_resolve_name(name.c_str());
            if (number == __NR_SCMP_ERROR) {
                base::log::debug("seccomp: system call " + quoted(name) +
                                 " is not known here, skipped");
                continue;
            }
            ARCA_CHECK(addRules(context, action, number, name, conditions));
        }
    }
    return {};
}

Result<std::string> exportFilter(scmp_filter_ctx context) {
    const UniqueFd file(::memfd_create("arca-seccomp", MFD_CLOEXEC));
    if (!file.valid()) return failErrno("memfd_create");
    const int exported = ::seccomp_export_bpf(context, file.get());
    if (exported != 0) return failErrno("linux.seccomp: compile the filter", -exported);
    if (::lseek(file.get(), 0, SEEK_SET) != 0) return failErrno("seek in the filter");
    return base::readAll(file.get(), size_t{16} << 20U);
}

}  // namespace

Result<SeccompProgram> compileSeccomp(const spec::Seccomp& profile) {
    // Without a default action there is no filter: `"seccomp": {}` is how engines say "none".
    if (profile.defaultAction.empty()) return SeccompProgram{};
    ARCA_TRY(const uint32_t default_action,
             actionOf(profile.defaultAction, profile.defaultErrnoRet));
    if (default_action == SCMP_ACT_NOTIFY) {
        return fail(Code::kInvalidArgument,
                    "linux.seccomp: SCMP_ACT_NOTIFY cannot be the default action");
    }
    const Context context(::seccomp_init(default_action));
    if (!context) return fail(Code::kInternal, "linux.seccomp: cannot make a filter");
    // vmexec sets no_new_privs where the configuration says so, not the library.
    (void)::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_NNP, 0);
    // A binary tree instead of a list: the filter runs at every system call of the container.
    (void)::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
    SeccompProgram program;
    ARCA_TRY(const std::vector<uint32_t> architectures, addArchitectures(context.get(), profile));
    ARCA_CHECK(addSyscalls(context.get(), profile, default_action, program.notify));
    if (program.notify && profile.listenerPath.empty()) {
        return fail(Code::kInvalidArgument,
                    "linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath");
    }
    ARCA_TRY(program.flags, flagsOf(profile, program.notify));
    ARCA_TRY(const std::string filter, exportFilter(context.get()));
    program.filter = enosysPrefix(profile, architectures) + filter;
    return program;
}

namespace {

// All that the program depends on, as one string. Lengths keep neighbours apart.
std::string keyOf(const spec::Seccomp& profile) {
    std::string key;
    key.reserve(16384);
    const auto text = [&](const std::string& value) {
        key += std::to_string(value.size());
        key += ':';
        key += value;
    };
    const auto number = [&](uint64_t value) {
        key += std::to_string(value);
        key += ',';
    };
    const auto optional = [&](const std::optional<uint32_t>& value) {
        number(value ? uint64_t{*value} + 1 : 0);
    };
    text(profile.defaultAction);
    optional(profile.defaultErrnoRet);
    number(profile.architectures.size());
    for (const std::string& name : profile.architectures) text(name);
    number(profile.flags ? profile.flags->size() + 1 : 0);
    if (profile.flags) {
        for (const std::string& flag : *profile.flags) text(flag);
    }
    number(profile.listenerPath.empty() ? 0 : 1);
    for (const spec::SeccompSyscall& rule : profile.syscalls) {
        number(rule.names.size());
        for (const std::string& name : rule.names) text(name);
        text(rule.action);
        optional(rule.errnoRet);
        number(rule.args.size());
        for (const spec::SeccompArg& arg : rule.args) {
            number(arg.index);
            number(arg.value);
            number(arg.valueTwo);
            text(arg.op);
        }
    }
    return key;
}

}  // namespace

Result<SeccompProgram> SeccompCache::get(const spec::Seccomp& profile) {
    constexpr size_t kMaxPrograms = 16;
    std::string key = keyOf(profile);
    const auto found = programs_.find(key);
    if (found != programs_.end()) return found->second;
    ARCA_TRY(SeccompProgram program, compileSeccomp(profile));
    if (programs_.size() >= kMaxPrograms) programs_.clear();
    programs_.emplace(std::move(key), program);
    return program;
}

}  // namespace arca::vminitd

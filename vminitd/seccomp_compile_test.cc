#include "vminitd/seccomp_compile.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace arca::vminitd {
namespace {

// What the filter answers; a classic BPF machine with the instructions that libseccomp uses.
uint32_t evaluate(const SeccompProgram& program, int number, uint64_t arg0 = 0,
                  uint32_t architecture = AUDIT_ARCH_X86_64) {
    seccomp_data data{};
    data.nr = number;
    data.arch = architecture;
    data.args[0] = arg0;
    std::vector<sock_filter> code(program.filter.size() / sizeof(sock_filter));
    std::memcpy(code.data(), program.filter.data(), program.filter.size());
    uint32_t a = 0;
    uint32_t scratch[16] = {};
    for (size_t pc = 0; pc < code.size(); ++pc) {
        const sock_filter& i = code[pc];
        const auto jump = [&](bool yes) { pc += yes ? i.jt : i.jf; };
        switch (i.code) {
            case BPF_LD | BPF_W | BPF_ABS:
                std::memcpy(&a, reinterpret_cast<const char*>(&data) + i.k, sizeof a);
                break;
            case BPF_LD | BPF_MEM:
                a = scratch[i.k];
                break;
            case BPF_ST:
                scratch[i.k] = a;
                break;
            case BPF_ALU | BPF_AND | BPF_K:
                a &= i.k;
                break;
            case BPF_JMP | BPF_JA:
                pc += i.k;
                break;
            case BPF_JMP | BPF_JEQ | BPF_K:
                jump(a == i.k);
                break;
            case BPF_JMP | BPF_JGT | BPF_K:
                jump(a > i.k);
                break;
            case BPF_JMP | BPF_JGE | BPF_K:
                jump(a >= i.k);
                break;
            case BPF_RET | BPF_K:
                return i.k;
            default:
                BOOST_FAIL("unexpected instruction " << i.code);
        }
    }
    BOOST_FAIL("the filter ran off its end");
    return 0;
}

spec::Seccomp profile() {
    spec::Seccomp out;
    out.defaultAction = "SCMP_ACT_ERRNO";
    out.architectures = {"SCMP_ARCH_X86_64"};
    spec::SeccompSyscall allow;
    allow.names = {"read", "no_such_call", "statx"};
    allow.action = "SCMP_ACT_ALLOW";
    out.syscalls = {allow};
    return out;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(seccomp_compile)

#if defined(__x86_64__)
// opencontainers/runtime-spec#972
BOOST_AUTO_TEST_CASE(unknown_names_are_skipped_and_never_allowed) {
    const auto program = compileSeccomp(profile());
    BOOST_TEST_REQUIRE(program.has_value());
    BOOST_TEST(evaluate(*program, SYS_read) == static_cast<uint32_t>(SECCOMP_RET_ALLOW));
    BOOST_TEST(evaluate(*program, SYS_write) ==
               (static_cast<uint32_t>(SECCOMP_RET_ERRNO) | static_cast<uint32_t>(EPERM)));
    BOOST_TEST(evaluate(*program, SYS_statx - 1) ==
               (static_cast<uint32_t>(SECCOMP_RET_ERRNO) | static_cast<uint32_t>(EPERM)));
}

BOOST_AUTO_TEST_CASE(calls_newer_than_the_profile_do_not_exist) {
    const uint32_t absent = SECCOMP_RET_ERRNO | static_cast<uint32_t>(ENOSYS);
    const uint32_t refused = SECCOMP_RET_ERRNO | static_cast<uint32_t>(EPERM);
    constexpr int kX32 = 0x40000000;
    constexpr int kStatx32 = 383;  // of i386
    spec::Seccomp p = profile();
    p.architectures = {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"};
    const auto program = compileSeccomp(p);
    BOOST_TEST_REQUIRE(program.has_value());
    const auto allowed = static_cast<uint32_t>(SECCOMP_RET_ALLOW);
    BOOST_TEST(evaluate(*program, SYS_statx) == allowed);
    BOOST_TEST(evaluate(*program, SYS_statx + 1) == absent);
    BOOST_TEST(evaluate(*program, 9999) == absent);
    BOOST_TEST(evaluate(*program, kX32 | SYS_statx) == allowed);
    BOOST_TEST(evaluate(*program, kX32 | (SYS_statx - 1)) == refused);
    BOOST_TEST(evaluate(*program, kX32 | (SYS_statx + 1)) == absent);
    BOOST_TEST(evaluate(*program, kStatx32, 0, AUDIT_ARCH_I386) == allowed);
    BOOST_TEST(evaluate(*program, kStatx32 - 1, 0, AUDIT_ARCH_I386) == refused);
    BOOST_TEST(evaluate(*program, kStatx32 + 1, 0, AUDIT_ARCH_I386) == absent);
    // An architecture that the profile does not have ends in the filter's own answer.
    BOOST_TEST(evaluate(*program, 9999, 0, AUDIT_ARCH_ARM) != absent);
    p.architectures = {"SCMP_ARCH_X86_64"};
    BOOST_TEST(evaluate(*compileSeccomp(p), kX32 | 9999) != absent);
    BOOST_TEST(evaluate(*compileSeccomp(p), 9999) == absent);
}

BOOST_AUTO_TEST_CASE(a_profile_that_lets_unnamed_calls_through_lets_newer_ones_through_too) {
    for (const char* action : {"SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"}) {
        spec::Seccomp p = profile();
        p.defaultAction = action;
        p.syscalls[0].action = "SCMP_ACT_ERRNO";
        BOOST_TEST(evaluate(*compileSeccomp(p), 9999) == evaluate(*compileSeccomp(p), SYS_getpid));
    }
    spec::Seccomp p = profile();
    p.defaultAction = "SCMP_ACT_KILL_PROCESS";
    BOOST_TEST(evaluate(*compileSeccomp(p), 9999) ==
               (static_cast<uint32_t>(SECCOMP_RET_ERRNO) | static_cast<uint32_t>(ENOSYS)));
    // No list of architectures: the profile does not say what it was written for.
    p.architectures.clear();
    BOOST_TEST(evaluate(*compileSeccomp(p), 9999) ==
               static_cast<uint32_t>(SECCOMP_RET_KILL_PROCESS));
}

BOOST_AUTO_TEST_CASE(several_conditions_on_one_argument_are_alternatives) {
    spec::Seccomp p = profile();
    p.syscalls[0].names = {"personality"};
    p.syscalls[0].args = {{0, 0, 0, "SCMP_CMP_EQ"}, {0, 8, 0, "SCMP_CMP_EQ"}};
    const auto program = compileSeccomp(p);
    BOOST_TEST_REQUIRE(program.has_value());
    const auto allow = static_cast<uint32_t>(SECCOMP_RET_ALLOW);
    BOOST_TEST(evaluate(*program, SYS_personality, 0) == allow);
    BOOST_TEST(evaluate(*program, SYS_personality, 8) == allow);
    BOOST_TEST(evaluate(*program, SYS_personality, 4) != allow);
}
#endif

BOOST_AUTO_TEST_CASE(what_is_wrong_is_refused) {
    const auto refused = [](const spec::Seccomp& p) {
        const auto program = compileSeccomp(p);
        return !program && program.error().code() == base::Code::kInvalidArgument;
    };
    spec::Seccomp p = profile();
    p.syscalls[0].names.clear();
    BOOST_TEST(refused(p));
    p = profile();
    p.syscalls[0].action = "SCMP_ACT_NOPE";
    BOOST_TEST(refused(p));
    p = profile();
    p.architectures = {"SCMP_ARCH_NOPE"};
    BOOST_TEST(refused(p));
    p = profile();
    p.defaultAction = "SCMP_ACT_ALLOW";
    p.defaultErrnoRet = 38;
    BOOST_TEST(refused(p));
    p = profile();
    p.syscalls[0].args = {{6, 0, 0, "SCMP_CMP_EQ"}};
    BOOST_TEST(refused(p));
    p = profile();
    p.syscalls[0].args = {{0, 0, 0, "SCMP_CMP_NOPE"}};
    BOOST_TEST(refused(p));
    p = profile();
    p.flags = {"SECCOMP_FILTER_FLAG_NOPE"};
    BOOST_TEST(refused(p));
    p = profile();
    p.syscalls[0].action = "SCMP_ACT_NOTIFY";
    BOOST_TEST(refused(p));  // no listenerPath
    p.listenerPath = "/x";
    BOOST_TEST(compileSeccomp(p)->notify);
    p.syscalls[0].names = {"write"};
    BOOST_TEST(refused(p));
}

BOOST_AUTO_TEST_CASE(foreign_and_newer_architectures_are_skipped) {
    spec::Seccomp p = profile();
    p.architectures = {"SCMP_ARCH_X86_64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_S390X",
                       "SCMP_ARCH_X86", "SCMP_ARCH_X32"};
    BOOST_TEST(compileSeccomp(p).has_value());
}

BOOST_AUTO_TEST_CASE(no_default_action_is_no_filter) {
    const auto program = compileSeccomp(spec::Seccomp{});
    BOOST_TEST_REQUIRE(program.has_value());
    BOOST_TEST(program->filter.empty());
}

BOOST_AUTO_TEST_CASE(an_empty_list_of_flags_is_no_flags) {
    spec::Seccomp p = profile();
    p.flags.emplace();
    BOOST_TEST(compileSeccomp(p)->flags == 0U);
}

BOOST_AUTO_TEST_CASE(the_cache_tells_profiles_apart) {
    SeccompCache cache;
    const auto first = cache.get(profile());
    spec::Seccomp other = profile();
    other.syscalls[0].names = {"write"};
    const auto second = cache.get(other);
    BOOST_TEST((first->filter != second->filter));
    BOOST_TEST((cache.get(profile())->filter == first->filter));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd

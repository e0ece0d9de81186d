#include "vminitd/device_rules.h"

#include <boost/test/unit_test.hpp>

#include "vminitd/device_bpf.h"

namespace arca::vminitd {
namespace {

using spec::DeviceRule;

bool allowed(const DevicePolicy& policy, const std::string& line) {
    for (const DeviceException& e : policy.exceptions) {
        if (deviceLine(e) == line) return true;
    }
    return false;
}

// Runs the few instructions that the assembler uses.
bool runProgram(const std::vector<bpf_insn>& program, uint32_t type, uint32_t access,
                uint32_t major, uint32_t minor) {
    const uint32_t context[3] = {(access << 16U) | type, major, minor};
    uint64_t reg[11] = {};
    for (size_t pc = 0; pc < program.size(); ++pc) {
        const bpf_insn& i = program[pc];
        const uint32_t imm = static_cast<uint32_t>(i.imm);
        const uint64_t operand = (i.code & BPF_X) != 0 ? reg[i.src_reg] : imm;
        switch (i.code & 7U) {
            case BPF_LDX:
                reg[i.dst_reg] = context[i.off / 4];
                break;
            case BPF_ALU:
            case BPF_ALU64:
                if ((i.code & 0xf0U) == BPF_MOV) reg[i.dst_reg] = operand;
                if ((i.code & 0xf0U) == BPF_AND) reg[i.dst_reg] &= operand;
                if ((i.code & 0xf0U) == BPF_RSH) reg[i.dst_reg] >>= operand;
                break;
            case BPF_JMP32: {
                const bool equal =
                    static_cast<uint32_t>(reg[i.dst_reg]) == static_cast<uint32_t>(operand);
                const bool jump = (i.code & 0xf0U) == BPF_JEQ ? equal : !equal;
                if (jump) pc += static_cast<size_t>(i.off);
                break;
            }
            case BPF_JMP:
                return reg[0] != 0;
            default:
                BOOST_FAIL("unexpected instruction");
        }
    }
    BOOST_FAIL("the program ran off its end");
    return false;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(device_rules)

BOOST_AUTO_TEST_CASE(nothing_asked_for_leaves_the_defaults) {
    const auto policy = foldDeviceRules({});
    BOOST_TEST_REQUIRE(policy.has_value());
    BOOST_TEST(!policy->allow_by_default);
    BOOST_TEST(allowed(*policy, "c *:* m"));
    BOOST_TEST(allowed(*policy, "b *:* m"));
    BOOST_TEST(allowed(*policy, "c 1:3 rwm"));
    BOOST_TEST(allowed(*policy, "c 136:* rwm"));
    BOOST_TEST(allowed(*policy, "c 10:200 rwm"));
}

BOOST_AUTO_TEST_CASE(later_rules_win) {
    const auto policy = foldDeviceRules({{false, 'a', std::nullopt, std::nullopt, "rwm"},
                                         {true, 'c', 10, 229, "rw"},
                                         {true, 'b', 8, 0, "rwm"},
                                         {false, 'c', 10, 229, "w"},
                                         {false, 'b', 8, std::nullopt, ""}});
    BOOST_TEST_REQUIRE(policy.has_value());
    BOOST_TEST(allowed(*policy, "c 10:229 r"));
    BOOST_TEST(!allowed(*policy, "b 8:0 rwm"));
}

BOOST_AUTO_TEST_CASE(allow_all_then_deny_one) {
    const auto policy = foldDeviceRules(
        {{true, 'a', std::nullopt, std::nullopt, ""}, {false, 'c', 10, 229, "rwm"}});
    BOOST_TEST_REQUIRE(policy.has_value());
    BOOST_TEST(policy->allow_by_default);
    BOOST_TEST(policy->exceptions.size() == 1U);
}

BOOST_AUTO_TEST_CASE(a_hole_in_a_wildcard_is_refused) {
    const auto policy =
        foldDeviceRules({{true, 'c', 4, std::nullopt, "rwm"}, {false, 'c', 4, 1, "r"}});
    BOOST_TEST_REQUIRE(!policy.has_value());
    BOOST_TEST((policy.error().code() == base::Code::kInvalidArgument));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(device_bpf)

BOOST_AUTO_TEST_CASE(allow_list) {
    const auto policy = foldDeviceRules({{true, 'b', 8, 0, "r"}});
    const auto program = assembleDeviceProgram(*policy);
    const uint32_t r = BPF_DEVCG_ACC_READ;
    const uint32_t w = BPF_DEVCG_ACC_WRITE;
    const uint32_t m = BPF_DEVCG_ACC_MKNOD;
    BOOST_TEST(runProgram(program, BPF_DEVCG_DEV_CHAR, r | w, 1, 3));
    BOOST_TEST(runProgram(program, BPF_DEVCG_DEV_CHAR, m, 200, 200));
    BOOST_TEST(!runProgram(program, BPF_DEVCG_DEV_CHAR, r, 200, 200));
    BOOST_TEST(runProgram(program, BPF_DEVCG_DEV_BLOCK, r, 8, 0));
    BOOST_TEST(!runProgram(program, BPF_DEVCG_DEV_BLOCK, r | w, 8, 0));
    BOOST_TEST(!runProgram(program, BPF_DEVCG_DEV_BLOCK, w, 8, 0));
    BOOST_TEST(!runProgram(program, BPF_DEVCG_DEV_BLOCK, r, 8, 1));
    BOOST_TEST(runProgram(program, BPF_DEVCG_DEV_CHAR, r | w, 136, 77));
}

BOOST_AUTO_TEST_CASE(deny_list) {
    const auto policy =
        foldDeviceRules({{true, 'a', std::nullopt, std::nullopt, ""}, {false, 'c', 10, 229, "w"}});
    const auto program = assembleDeviceProgram(*policy);
    BOOST_TEST(!runProgram(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE,
                           10, 229));
    BOOST_TEST(runProgram(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 10, 229));
    BOOST_TEST(runProgram(program, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_WRITE, 10, 229));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd

#include "vminitd/device_bpf.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/bpf.h"
#include "base/files.h"
#include "base/unique_fd.h"

namespace arca::vminitd {

using base::bpf;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// Registers: the context comes in r1; what it holds is kept in r2 to r5.
constexpr uint8_t kContext = BPF_REG_1;
constexpr uint8_t kType = BPF_REG_2;
constexpr uint8_t kAccess = BPF_REG_3;
constexpr uint8_t kMajor = BPF_REG_4;
constexpr uint8_t kMinor = BPF_REG_5;
constexpr uint8_t kScratch = BPF_REG_1;  // free once the context is read

bpf_insn loadWord(uint8_t dst, size_t offset) {
    return base::bpfInstruction(BPF_LDX | BPF_MEM | BPF_W, dst, kContext,
                                static_cast<int16_t>(offset), 0);
}

void answer(std::vector<bpf_insn>& program, bool allowed) {
    program.push_back(
        base::bpfInstruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, allowed ? 1 : 0));
    program.push_back(base::bpfInstruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
}

int32_t accessBits(const std::string& access) {
    int32_t bits = 0;
    for (const char letter : access) {
        if (letter == 'm') bits |= BPF_DEVCG_ACC_MKNOD;
        if (letter == 'r') bits |= BPF_DEVCG_ACC_READ;
        if (letter == 'w') bits |= BPF_DEVCG_ACC_WRITE;
    }
    return bits;
}

void assembleException(std::vector<bpf_insn>& program, const DeviceException& exception,
                       bool allow_by_default) {
    std::vector<bpf_insn> body;
    // Offsets are filled in below: each test that fails jumps past this exception.
    const auto unlessEqual = [&](uint8_t reg, int64_t value) {
        body.push_back(base::bpfInstruction(BPF_JMP32 | BPF_JNE | BPF_K, reg, 0, 0,
                                            static_cast<int32_t>(static_cast<uint32_t>(value))));
    };
    unlessEqual(kType, exception.type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
    const int32_t bits = accessBits(exception.access);
    constexpr int32_t kAll = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;
    if (bits != kAll) {
        body.push_back(base::bpfInstruction(BPF_ALU | BPF_MOV | BPF_X, kScratch, kAccess, 0, 0));
        body.push_back(base::bpfInstruction(BPF_ALU | BPF_AND | BPF_K, kScratch, 0, 0, bits));
        if (allow_by_default) {
            // Denied when any part of the request is.
            body.push_back(base::bpfInstruction(BPF_JMP32 | BPF_JEQ | BPF_K, kScratch, 0, 0, 0));
        } else {
            // Allowed when all of the request is.
            body.push_back(
                base::bpfInstruction(BPF_JMP32 | BPF_JNE | BPF_X, kScratch, kAccess, 0, 0));
        }
    }
    if (exception.major) unlessEqual(kMajor, *exception.major);
    if (exception.minor) unlessEqual(kMinor, *exception.minor);
    answer(body, !allow_by_default);
    for (size_t i = 0; i < body.size(); ++i) {
        const unsigned operation = body[i].code & 0xf0U;
        if ((body[i].code & 0x07U) == BPF_JMP32 && (operation == BPF_JNE || operation == BPF_JEQ)) {
            body[i].off = static_cast<int16_t>(body.size() - i - 1);
        }
    }
    program.insert(program.end(), body.begin(), body.end());
}

// The program that is attached to `cgroup_fd` itself, or an invalid descriptor.
UniqueFd attachedProgram(int cgroup_fd) {
    std::array<uint32_t, 64> ids{};
    bpf_attr query{};
    query.query.target_fd = static_cast<uint32_t>(cgroup_fd);
    query.query.attach_type = BPF_CGROUP_DEVICE;
    query.query.prog_ids = reinterpret_cast<uint64_t>(ids.data());
    query.query.prog_cnt = ids.size();
    if (bpf(BPF_PROG_QUERY, query) != 0 || query.query.prog_cnt == 0) return UniqueFd();
    bpf_attr get{};
    get.prog_id = ids[0];
    return UniqueFd(bpf(BPF_PROG_GET_FD_BY_ID, get));
}

}  // namespace

std::vector<bpf_insn> assembleDeviceProgram(const DevicePolicy& policy) {
    std::vector<bpf_insn> program;
    program.push_back(loadWord(kMajor, offsetof(bpf_cgroup_dev_ctx, major)));
    program.push_back(loadWord(kMinor, offsetof(bpf_cgroup_dev_ctx, minor)));
    // access_type holds the access in its upper half and the type in its lower half.
    program.push_back(loadWord(kType, offsetof(bpf_cgroup_dev_ctx, access_type)));
    program.push_back(base::bpfInstruction(BPF_ALU | BPF_MOV | BPF_X, kAccess, kType, 0, 0));
    program.push_back(base::bpfInstruction(BPF_ALU | BPF_RSH | BPF_K, kAccess, 0, 0, 16));
    program.push_back(base::bpfInstruction(BPF_ALU | BPF_AND | BPF_K, kType, 0, 0, 0xffff));
    for (const DeviceException& exception : policy.exceptions) {
        assembleException(program, exception, policy.allow_by_default);
    }
    answer(program, policy.allow_by_default);
    return program;
}

Result<> attachDevicePolicy(const std::string& cgroup_dir, const DevicePolicy& policy) {
    const std::vector<bpf_insn> program = assembleDeviceProgram(policy);
    ARCA_TRY(const UniqueFd loaded,
             base::loadBpf(BPF_PROG_TYPE_CGROUP_DEVICE, program, "load the device filter"));

    ARCA_TRY(const UniqueFd cgroup, base::openAt(AT_FDCWD, cgroup_dir, O_RDONLY | O_DIRECTORY));
    const UniqueFd old = attachedProgram(cgroup.get());
    bpf_attr attach{};
    attach.target_fd = static_cast<uint32_t>(cgroup.get());
    attach.attach_bpf_fd = static_cast<uint32_t>(loaded.get());
    attach.attach_type = BPF_CGROUP_DEVICE;
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    if (old.valid()) {
        // Replaced in one step: there is no moment without a filter.
        attach.attach_flags |= BPF_F_REPLACE;
        attach.replace_bpf_fd = static_cast<uint32_t>(old.get());
    }
    if (bpf(BPF_PROG_ATTACH, attach) != 0) {
        return failErrno("attach the device filter to " + cgroup_dir);
    }
    return {};
}

}  // namespace arca::vminitd

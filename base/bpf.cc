#include "base/bpf.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace arca::base {

bpf_insn bpfInstruction(unsigned code, uint8_t destination, uint8_t source, int16_t offset,
                        int32_t immediate) {
    bpf_insn made{};
    made.code = static_cast<uint8_t>(code);
    made.dst_reg = static_cast<uint8_t>(destination & 0x0fU);
    made.src_reg = static_cast<uint8_t>(source & 0x0fU);
    made.off = offset;
    made.imm = immediate;
    return made;
}

int bpf(int command, bpf_attr& attributes) {
    return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof attributes));
}

Result<UniqueFd> loadBpf(bpf_prog_type type, std::span<const bpf_insn> program,
                         const std::string& what) {
    static const char kLicense[] = "Apache-2.0";
    bpf_attr attributes{};
    attributes.prog_type = type;
    attributes.insns = reinterpret_cast<uint64_t>(program.data());
    attributes.insn_cnt = static_cast<uint32_t>(program.size());
    attributes.license = reinterpret_cast<uint64_t>(kLicense);
    UniqueFd loaded(bpf(BPF_PROG_LOAD, attributes));
    if (!loaded.valid()) return failErrno(what);
    return loaded;
}

}  // namespace arca::base

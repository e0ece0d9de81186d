// Programs for the kernel's BPF machine. Source: bpf(2), kernel Documentation/bpf.
#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

bpf_insn bpfInstruction(unsigned code, uint8_t destination, uint8_t source, int16_t offset,
                        int32_t immediate);

// The system call.
int bpf(int command, bpf_attr& attributes);

// Has the kernel check and load it; `what` names it in the error: "load the device filter".
Result<UniqueFd> loadBpf(bpf_prog_type type, std::span<const bpf_insn> program,
                         const std::string& what);

}  // namespace arca::base

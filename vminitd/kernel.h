// The calls about the sandbox's kernel: Sysctl, SetTime, SetupEmulator, Kill.
//
// Worker threads; nothing here touches the agent's state.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"

namespace arca::vminitd {

// Writes each value to the file of its key below `proc_sys`, in the order of the keys. All keys are
// looked at first (kInvalidArgument; spec/sysctl.h has their form); a write that fails stops the
// rest, and those before stay.
base::Result<> setSysctls(const std::map<std::string, std::string>& settings,
                          const std::string& proc_sys = "/proc/sys");

// settimeofday(2). kInvalidArgument when `usec` is no part of a second or `sec` is negative.
base::Result<> setTime(int64_t sec, int32_t usec);

// The parts of a line of binfmt_misc's register file.
struct Emulator {
    std::string binary_path, name, type, offset, magic, mask, flags;
};
// The line, after each part was checked. kInvalidArgument names the part that is wrong.
// Source: the kernel's admin-guide/binfmt-misc.rst.
base::Result<std::string> emulatorLine(const Emulator& emulator);
// Registers it, mounting binfmt_misc on `folder` when it is not there yet. A kernel without
// binfmt_misc: kUnsupported. A name that is registered already: kAlreadyExists.
base::Result<> setUpEmulator(const Emulator& emulator,
                             const std::string& folder = "/proc/sys/fs/binfmt_misc");

// kill(2), without the agent ever being hit: kInvalidArgument for pid 0, 1, the agent's own and its
// process group, and for what is no signal; kSystem with errno otherwise. -1 is everything else
// that there is, -N the process group N.
base::Result<> killAny(pid_t pid, int signal_number);

}  // namespace arca::vminitd

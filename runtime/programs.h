// Finds the programs that belong to this one (vmexec, vminitd, ...) and the guest's files.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

struct Program {
    std::string path;
    base::UniqueFd fd;  // O_PATH
};

// Looks beside our own file, then in ../libexec/arca-runtime from there, then in $ARCA_LIBEXEC.
// kNotFound when it is in none of them.
base::Result<Program> findProgram(const std::string& name);

// The path of a guest's file (kernel, initramfs): in guest/ beside our own folder, in
// ../libexec/arca-runtime/guest, or in $ARCA_LIBEXEC/guest. kNotFound when it is in none of them.
base::Result<std::string> findGuestFile(const std::string& name);

}  // namespace arca::runtime

// Security modules: the label that the program gets when it is executed.
#pragma once

#include "base/result.h"
#include "spec/spec.h"
#include "vmexec/proc_fs.h"

namespace arca::vmexec {

// True when this kernel runs SELinux. To be asked while the runtime's /sys is in reach.
bool selinuxEnabled();

// Fails with kUnsupported, naming the module, when the process asks for a label of a security
// module that this kernel does not run. To be asked while the runtime's /sys is in reach.
base::Result<> checkSecurityModules(const spec::Process& process);

// Sets the labels for the next execve(2) through the runtime's own procfs.
base::Result<> setExecLabels(const spec::Process& process, const ProcFs& proc);

}  // namespace arca::vmexec

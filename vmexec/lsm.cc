#include "vmexec/lsm.h"

#include <linux/magic.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <string>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::Result;

namespace {

bool apparmorEnabled() {
    const auto text = base::readFile("/sys/module/apparmor/parameters/enabled", 16);
    return text && text->starts_with('Y');
}

Result<> writeLabel(const ProcFs& proc, const std::string& path, const std::string& value) {
    auto written = proc.write(path, value);
    // Podman looks for the file's name in backquotes.
    if (!written)
        return fail(std::move(written).error().withContext("write file `/proc/" + path + "`"));
    return {};
}

}  // namespace

bool selinuxEnabled() {
    struct statfs st {};
    return ::statfs("/sys/fs/selinux", &st) == 0 &&
           static_cast<unsigned long>(st.f_type) == SELINUX_MAGIC;
}

Result<> checkSecurityModules(const spec::Process& process) {
    if (!process.apparmorProfile.empty() && !apparmorEnabled()) {
        return fail(Code::kUnsupported, "apparmorProfile " +
                                            base::printable(process.apparmorProfile) +
                                            ": AppArmor is not enabled in this kernel");
    }
    if (!process.selinuxLabel.empty() && !selinuxEnabled()) {
        return fail(Code::kUnsupported, "selinuxLabel " + base::printable(process.selinuxLabel) +
                                            ": SELinux is not enabled in this kernel");
    }
    return {};
}

Result<> setExecLabels(const spec::Process& process, const ProcFs& proc) {
    if (!process.apparmorProfile.empty()) {
        const std::string value = "exec " + process.apparmorProfile;
        // The first is AppArmor's own; the second is shared with other modules and older.
        if (!proc.write("self/attr/apparmor/exec", value))
            ARCA_CHECK(writeLabel(proc, "self/attr/exec", value));
    }
    if (!process.selinuxLabel.empty())
        ARCA_CHECK(writeLabel(proc, "self/attr/exec", process.selinuxLabel));
    return {};
}

}  // namespace arca::vmexec

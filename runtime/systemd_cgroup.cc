#include "runtime/systemd_cgroup.h"

#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/files.h"
#include "runtime/systemd/bus.h"

namespace arca::runtime {
namespace {

using base::Result;
using systemd::Manager;

// Which of systemd's two sets of names the properties have.
bool unifiedHost() {
    struct statfs info {};
    return ::statfs("/sys/fs/cgroup", &info) == 0 && info.f_type == CGROUP2_SUPER_MAGIC;
}

}  // namespace

Result<systemd::ScopeName> scopeFor(const spec::Spec& spec, const std::string& id) {
    return systemd::scopeName(spec.linux.cgroupsPath, id,
                              ::geteuid() == 0 ? "system.slice" : "user.slice");
}

Result<> placeInScope(const systemd::ScopeName& name, pid_t pid, spec::Spec& spec, Record& record) {
    ARCA_TRY(systemd::Properties properties,
             systemd::scopeProperties(spec, record.id, name.slice, unifiedHost()));
    ARCA_TRY(Manager manager, Manager::connect());
    if (record.scope) ARCA_CHECK(manager.stop(record.scope->unit));
    ARCA_TRY(spec.linux.cgroupsPath, manager.startScope(name, std::move(properties), pid));
    // Only now: what has this name and is not ours must not be stopped by who takes a failure back.
    record.scope = name;
    // systemd takes the number as one of its own process namespace.
    ARCA_TRY(const std::string now, base::readFile("/proc/" + std::to_string(pid) + "/cgroup"));
    if ((now + "\n").find(":" + spec.linux.cgroupsPath + "\n") != std::string::npos) return {};
    return base::fail(base::Code::kFailedPrecondition,
                      "--systemd-cgroup: systemd did not move process " + std::to_string(pid) +
                          " to " + spec.linux.cgroupsPath +
                          ": is it in another pid namespace than this runtime?");
}

Result<> updateScope(const Record& record, const spec::Resources& resources) {
    if (!record.scope) return {};
    ARCA_TRY(const systemd::Properties properties,
             systemd::resourceProperties(resources, unifiedHost()));
    if (properties.empty()) return {};
    ARCA_TRY(Manager manager, Manager::connect());
    return manager.setProperties(record.scope->unit, properties);
}

Result<> stopScope(const Record& record) {
    if (!record.scope) return {};
    ARCA_TRY(Manager manager, Manager::connect());
    return manager.stop(record.scope->unit);
}

}  // namespace arca::runtime

#include "runtime/bundle.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "spec/parse.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;
namespace texts = base::texts;

// The absolute path of an open directory, as getcwd(2) in it would give.
Result<std::string> pathOf(const UniqueFd& dir) {
    char buffer[4096];
    const ssize_t n = ::readlink(base::fdPath(dir.get()).c_str(), buffer, sizeof buffer);
    if (n < 0) return base::failErrno("readlink the bundle");
    return std::string(buffer, static_cast<size_t>(n));
}

}  // namespace

void resolveBindSources(spec::Spec& spec, const std::string& bundle) {
    for (spec::Mount& mount : spec.mounts) {
        if (mount.source.empty() || mount.source.front() == '/' || !mount.isBind()) continue;
        mount.source = base::absolutePath(bundle, mount.source);
    }
}

Result<> checkNoLimits(const spec::Resources& resources) {
    const char* const limit = resources.aLimit();
    if (limit == nullptr) return {};
    return fail(Code::kInvalidArgument, std::string("linux.resources.") + limit +
                                            ": cannot be set with the cgroup manager disabled");
}

Result<> checkCgroupsPath(const std::string& cgroups_path, const Globals& globals) {
    if (globals.cgroups_disabled) return {};
    const auto parts = base::split(cgroups_path, ':');
    const bool systemd_form = parts.size() == 3 && cgroups_path.front() != '/';
    const std::string quoted = "\"" + base::printable(cgroups_path) + "\"";
    if (globals.systemd_cgroup) return {};  // what it must be then is scopeFor()'s to say
    if (systemd_form) {
        return fail(Code::kInvalidArgument, "cgroupsPath " + quoted +
                                                " is of format \"slice:prefix:name\" for systemd "
                                                "cgroups, but --systemd-cgroup was not given");
    }
    return {};
}

Result<> checkTerminal(bool terminal, bool detach, bool console_socket) {
    if (detach && terminal && !console_socket) {
        return fail(Code::kInvalidArgument, texts::kTtyNeedsConsoleSocket);
    }
    if ((!detach || !terminal) && console_socket) {
        return fail(Code::kInvalidArgument, texts::kConsoleSocketWithoutTty);
    }
    return {};
}

Result<Bundle> loadBundle(const std::string& dir, const std::string& config_name) {
    const std::string name = config_name.empty() ? "config.json" : config_name;
    Bundle bundle;
    ARCA_TRY(const UniqueFd fd,
             base::openAt(AT_FDCWD, dir.empty() ? "." : dir, O_RDONLY | O_DIRECTORY));
    ARCA_TRY(bundle.path, pathOf(fd));
    auto text = base::readFile(name, spec::kMaxConfigBytes, fd.get());
    if (!text) {
        if (text.error().sysErrno() == ENOENT) {
            return fail(Code::kNotFound,
                        "JSON specification file " + base::printable(name) + " not found");
        }
        return fail(std::move(text).error());
    }
    spec::Warnings warnings;
    auto parsed = spec::parseSpec(*text, spec::Source::kBundle, &warnings);
    if (!parsed) return fail(std::move(parsed).error().withContext(base::printable(name)));
    for (const std::string& warning : warnings) {
        base::log::warning(base::printable(name) + ": " + warning);
    }
    bundle.spec = std::move(*parsed);
    if (!bundle.spec.root) {
        return fail(Code::kInvalidArgument, base::printable(name) + ": /root: missing");
    }
    spec::Root& root = *bundle.spec.root;
    root.path = base::absolutePath(bundle.path, root.path);
    auto rootfs = base::openAt(AT_FDCWD, root.path, O_PATH | O_DIRECTORY);
    if (!rootfs) return fail(std::move(rootfs).error().withContext("invalid rootfs"));
    resolveBindSources(bundle.spec, bundle.path);
    return bundle;
}

}  // namespace arca::runtime

// spec: a template of config.json.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/files.h"
#include "runtime/commands/commands.h"
#include "runtime/context.h"
#include "spec/write.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

Result<int> specCommand(Context& context) {
    const std::string& dir_name = context.arguments.text("bundle");
    ARCA_TRY(const UniqueFd dir,
             base::openAt(AT_FDCWD, dir_name.empty() ? "." : dir_name, O_RDONLY | O_DIRECTORY));
    auto file = base::openAt(dir.get(), "config.json", O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (!file) {
        if (file.error().sysErrno() == EEXIST) {
            return fail(Code::kAlreadyExists, "File config.json exists. Remove it first");
        }
        return fail(std::move(file).error());
    }
    struct statfs cgroups {};
    spec::TemplateOptions options;
    options.rootless = context.arguments.isSet("rootless");
    options.cgroup2 =
        ::statfs("/sys/fs/cgroup", &cgroups) == 0 && cgroups.f_type == CGROUP2_SUPER_MAGIC;
    options.uid = ::geteuid();
    options.gid = ::getegid();
    ARCA_CHECK(base::writeAll(file->get(), spec::templateConfig(options)));
    return 0;
}

}  // namespace arca::runtime

#include "hooks/hooks_dir.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/files.h"
#include "base/strings.h"

namespace arca::hooks {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20U;
constexpr std::string_view kSuffix = ".json";

Result<std::string> readRegular(int dir_fd, const std::string& name) {
    // Without waiting: what is no file could keep us for ever.
    ARCA_TRY(const UniqueFd file, base::openAt(dir_fd, name, O_RDONLY | O_NONBLOCK));
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) return base::failErrno("stat " + name);
    if (!S_ISREG(info.st_mode)) return fail(Code::kInvalidArgument, "not a regular file");
    return base::readAll(file.get(), kMaxFileBytes);
}

Result<HookFile> readHookFile(int dir_fd, const std::string& name) {
    ARCA_TRY(const std::string text, readRegular(dir_fd, name));
    ARCA_TRY(HookFile file, parseHookFile(text));
    file.name = name;
    file.hook.file = name;
    return file;
}

bool isBefore(const std::string& a, const std::string& b) {
    return std::make_tuple(base::toLower(a), std::string_view(a)) <
           std::make_tuple(base::toLower(b), std::string_view(b));
}

}  // namespace

Result<std::vector<HookFile>> loadHooksDir(const std::string& folder) {
    std::vector<HookFile> files;
    auto dir = base::openAt(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY);
    if (!dir && dir.error().sysErrno() == ENOENT) return files;
    if (!dir) return fail(Code::kFailedPrecondition, dir.error().message());
    ARCA_TRY(std::vector<std::string> names, base::listDir(dir->get()));
    std::erase_if(names, [](const std::string& name) { return !name.ends_with(kSuffix); });
    std::sort(names.begin(), names.end(), isBefore);
    for (const std::string& name : names) {
        auto file = readHookFile(dir->get(), name);
        if (!file) {
            return fail(Code::kFailedPrecondition,
                        base::printable(folder + "/" + name) + ": " + file.error().message());
        }
        files.push_back(std::move(*file));
    }
    return files;
}

void addMatchingHooks(const std::vector<HookFile>& files, spec::Spec& spec) {
    for (const HookFile& file : files) {
        if (!file.when.holds(spec)) continue;
        for (const std::string& stage : file.stages) {
            spec.hooks.find(stage)->push_back(file.hook);
        }
    }
}

}  // namespace arca::hooks

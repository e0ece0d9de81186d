#include "runtime/drivers/host_cgroup.h"

#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "vminitd/cgroup.h"
#include "vminitd/cgroup_fs.h"
#include "vminitd/cgroup_record.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
using vminitd::CgroupDirs;

constexpr char kFile[] = "host-cgroup.json";
constexpr size_t kMaxBytes = 65536;

Result<CgroupDirs> readDirs(int dir_fd) {
    ARCA_TRY(const std::string text, base::readFile(kFile, kMaxBytes, dir_fd));
    try {
        return vminitd::cgroupsFromJson(nlohmann::json::parse(text));
    } catch (const nlohmann::json::exception& error) {
        return fail(Code::kInternal, std::string(kFile) + ": " + error.what());
    }
}

}  // namespace

Result<> enterHostCgroup(int container_dir_fd, const std::string& container_id,
                         const std::string& cgroups_path, pid_t pid) {
    vminitd::RealCgroupFs fs;
    auto manager = vminitd::detectCgroups(fs);
    if (!manager) {
        // An ordinary user has no cgroup to give.
        if (::geteuid() != 0) return {};
        return fail(std::move(manager).error());
    }
    ARCA_TRY(const CgroupDirs dirs,
             (*manager)->locate(cgroups_path.empty() ? container_id : cgroups_path));
    const std::string text =
        vminitd::cgroupsToJson(dirs).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    ARCA_CHECK(base::replaceFile(container_dir_fd, kFile, text));
    ARCA_CHECK((*manager)->create(dirs));
    return (*manager)->addProcess(dirs, pid);
}

Result<> removeHostCgroup(int container_dir_fd) {
    auto dirs = readDirs(container_dir_fd);
    if (!dirs) {
        if (dirs.error().sysErrno() == ENOENT) return {};
        return fail(std::move(dirs).error());
    }
    vminitd::RealCgroupFs fs;
    ARCA_TRY(const auto manager, vminitd::detectCgroups(fs));
    // A stand-in that was killed just now needs a moment to leave.
    constexpr std::chrono::seconds kPatience{2};
    constexpr std::chrono::milliseconds kPause{2};
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (true) {
        ARCA_TRY(const bool removed, manager->remove(*dirs));
        if (removed) break;
        if (std::chrono::steady_clock::now() > deadline) {
            return fail(Code::kDeadlineExceeded, "the container's cgroup is still in use");
        }
        std::this_thread::sleep_for(kPause);
    }
    (void)::unlinkat(container_dir_fd, kFile, 0);
    return {};
}

}  // namespace arca::runtime

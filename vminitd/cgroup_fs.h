// The few file operations that cgroup code needs, behind an interface so that tests run without
// root and without a kernel's cgroups.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arca::vminitd {

class CgroupFs {
 public:
    virtual ~CgroupFs() = default;
    // Makes one directory, 0755. True: made; false: it was there.
    virtual base::Result<bool> makeDir(const std::string& path) = 0;
    // rmdir(2). True: gone (also when it never was); false: busy, a later try may work.
    virtual base::Result<bool> removeDir(const std::string& path) = 0;
    // Content without the final line end.
    virtual base::Result<std::string> read(const std::string& path) = 0;
    // One write(2) is one command. The message of a failure names value and path.
    virtual base::Result<> write(const std::string& path, std::string_view value) = 0;
    // Several commands for one file, each a write(2) of its own; stops at the first failure.
    virtual base::Result<> writeEach(const std::string& path,
                                     const std::vector<std::string>& values) = 0;
    virtual bool exists(const std::string& path) = 0;
    // Names of the directories in `path`.
    virtual base::Result<std::vector<std::string>> childDirs(const std::string& path) = 0;
    // Gives a file or directory to a user; its group stays. A symbolic link is not followed.
    virtual base::Result<> setOwner(const std::string& path, uid_t uid) = 0;
    // Sends `signal_number` to a pid that was just read from a cgroup. A vanished one is no error.
    virtual base::Result<> signal(pid_t pid, int signal_number) = 0;
};

class RealCgroupFs : public CgroupFs {
 public:
    base::Result<bool> makeDir(const std::string& path) override;
    base::Result<bool> removeDir(const std::string& path) override;
    base::Result<std::string> read(const std::string& path) override;
    base::Result<> write(const std::string& path, std::string_view value) override;
    base::Result<> writeEach(const std::string& path,
                             const std::vector<std::string>& values) override;
    bool exists(const std::string& path) override;
    base::Result<std::vector<std::string>> childDirs(const std::string& path) override;
    base::Result<> setOwner(const std::string& path, uid_t uid) override;
    base::Result<> signal(pid_t pid, int signal_number) override;
};

}  // namespace arca::vminitd

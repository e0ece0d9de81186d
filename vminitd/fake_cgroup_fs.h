// A cgroup file system in memory, for tests: directories, files, and every write in order.
#pragma once

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "vminitd/cgroup_fs.h"

namespace arca::vminitd {

class FakeCgroupFs : public CgroupFs {
 public:
    std::set<std::string> dirs;
    std::map<std::string, std::string> files;
    std::vector<std::pair<std::string, std::string>> writes;
    std::map<std::string, int> write_errors;  // path -> errno
    // Called for each new directory, to put the kernel's files into it.
    std::function<void(FakeCgroupFs&, const std::string&)> populate;
    // Looked at before a write is taken; not 0: the errno that it fails with.
    std::function<int(const std::string& path, const std::string& value)> veto;
    std::vector<std::pair<pid_t, int>> signals;
    std::map<std::string, uid_t> owners;

    base::Result<bool> makeDir(const std::string& path) override {
        if (dirs.contains(path)) return false;
        if (!dirs.contains(path.substr(0, path.rfind('/')))) {
            return base::failErrno("mkdir " + path, ENOENT);
        }
        dirs.insert(path);
        if (populate) populate(*this, path);
        return true;
    }
    base::Result<bool> removeDir(const std::string& path) override {
        if (!dirs.contains(path)) return true;
        const auto child = dirs.lower_bound(path + "/");
        if (child != dirs.end() && child->rfind(path + "/", 0) == 0) return false;
        const auto procs = files.find(path + "/cgroup.procs");
        if (procs != files.end() && !procs->second.empty()) return false;
        dirs.erase(path);
        std::erase_if(files, [&](const auto& f) { return f.first.rfind(path + "/", 0) == 0; });
        return true;
    }
    base::Result<std::string> read(const std::string& path) override {
        const auto found = files.find(path);
        if (found == files.end()) return base::failErrno("open " + path, ENOENT);
        return found->second;
    }
    base::Result<> write(const std::string& path, std::string_view value) override {
        if (!files.contains(path)) return base::failErrno("open " + path, ENOENT);
        if (write_errors.contains(path)) return base::failErrno("write", write_errors[path]);
        if (veto) {
            const int why = veto(path, std::string(value));
            if (why != 0) return base::failErrno("write " + path, why);
        }
        writes.emplace_back(path, value);
        const bool list = path.ends_with("cgroup.procs") || path.ends_with("devices.allow") ||
                          path.ends_with("devices.deny");
        std::string& file = files[path];
        if (list && !file.empty()) {
            file += "\n" + std::string(value);
        } else {
            file = value;
        }
        return {};
    }
    base::Result<> writeEach(const std::string& path,
                             const std::vector<std::string>& values) override {
        for (const std::string& value : values) ARCA_CHECK(write(path, value));
        return {};
    }
    bool exists(const std::string& path) override {
        return files.contains(path) || dirs.contains(path);
    }
    base::Result<std::vector<std::string>> childDirs(const std::string& path) override {
        std::vector<std::string> names;
        for (const std::string& dir : dirs) {
            if (dir.rfind(path + "/", 0) != 0) continue;
            const std::string rest = dir.substr(path.size() + 1);
            if (rest.find('/') == std::string::npos) names.push_back(rest);
        }
        return names;
    }
    base::Result<> setOwner(const std::string& path, uid_t uid) override {
        if (!exists(path)) return base::failErrno("chown " + path, ENOENT);
        owners[path] = uid;
        return {};
    }
    base::Result<> signal(pid_t pid, int signal_number) override {
        signals.emplace_back(pid, signal_number);
        if (signal_number != 9) return {};
        // It dies at once.
        for (auto& [path, text] : files) {
            if (!path.ends_with("/cgroup.procs")) continue;
            std::string left;
            for (const std::string_view line : base::split(text, '\n')) {
                if (line == std::to_string(pid)) continue;
                left += (left.empty() ? "" : "\n") + std::string(line);
            }
            text = left;
        }
        return {};
    }

    // Values written to `path`, in order.
    [[nodiscard]] std::vector<std::string> written(const std::string& path) const {
        std::vector<std::string> out;
        for (const auto& [file, value] : writes) {
            if (file == path) out.push_back(value);
        }
        return out;
    }
};

}  // namespace arca::vminitd

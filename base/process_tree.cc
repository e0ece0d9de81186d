#include "base/process_tree.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/vfs.h>
#include <time.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/process.h"
#include "base/process_stat.h"
#include "base/strings.h"
#include "base/unique_fd.h"

namespace arca::base {
namespace {

// What /proc says of a process. Numbers are those of the namespace whose /proc it is.
struct Entry {
    pid_t parent = 0;
    bool ended = false;          // a zombie, or about to be none any more
    std::vector<pid_t> numbers;  // in each namespace, from that of /proc to its own
};

Result<Entry> readEntry(int proc, const std::string& name) {
    ARCA_TRY(const std::string status, readFile(name + "/status", 65536, proc));
    Entry entry;
    const std::string_view state = statusField(status, "State:");
    entry.ended = state.empty() || state.front() == 'Z' || state.front() == 'X';
    entry.parent = parseNumber<pid_t>(statusField(status, "PPid:")).value_or(0);
    for (const std::string_view number : split(statusField(status, "NSpid:"), '\t')) {
        if (const auto pid = parseNumber<pid_t>(number)) entry.numbers.push_back(*pid);
    }
    if (entry.numbers.empty()) return fail(Code::kUnavailable, "/proc does not tell pids");
    return entry;
}

Result<std::map<pid_t, Entry>> readAll(int proc) {
    std::map<pid_t, Entry> all;
    ARCA_TRY(const std::vector<std::string> names, listDir(proc));
    for (const std::string& name : names) {
        const auto pid = parseNumber<pid_t>(name);
        if (!pid) continue;
        auto entry = readEntry(proc, name);
        if (entry) all.emplace(*pid, std::move(*entry));  // else it has gone meanwhile
    }
    return all;
}

class Tree {
 public:
    static Result<Tree> open(pid_t root) {
        Tree tree;
        ARCA_TRY(tree.proc_, openAt(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY));
        struct statfs info {};
        if (::fstatfs(tree.proc_.get(), &info) != 0 || info.f_type != PROC_SUPER_MAGIC) {
            return fail(Code::kUnavailable, "/proc is none");
        }
        ARCA_TRY(const Entry self, readEntry(tree.proc_.get(), "self"));
        tree.self_ = self.numbers.front();
        tree.depth_ = self.numbers.size();
        tree.root_ = root;
        return tree;
    }

    // One round; how many were still there.
    Result<size_t> kill() const {
        ARCA_TRY(const auto all, readAll(proc_.get()));
        size_t alive = 0;
        for (const pid_t pid : descendants(all)) {
            const Entry& entry = all.at(pid);
            if (entry.ended) continue;
            ++alive;
            killOne(pid, entry);
        }
        return alive;
    }

 private:
    [[nodiscard]] pid_t ownNumber(const Entry& entry) const {
        return entry.numbers.size() < depth_ ? 0 : entry.numbers[depth_ - 1];
    }

    [[nodiscard]] std::set<pid_t> descendants(const std::map<pid_t, Entry>& all) const {
        std::multimap<pid_t, pid_t> children;
        std::vector<pid_t> open;
        for (const auto& [pid, entry] : all) {
            children.emplace(entry.parent, pid);
            if (entry.parent == self_ && ownNumber(entry) == root_) open.push_back(pid);
        }
        std::set<pid_t> found;
        while (!open.empty()) {
            const pid_t parent = open.back();
            open.pop_back();
            const auto [first, last] = children.equal_range(parent);
            for (auto child = first; child != last; ++child) {
                if (found.insert(child->second).second) open.push_back(child->second);
            }
        }
        return found;
    }

    void killOne(pid_t pid, const Entry& entry) const {
        const pid_t own = ownNumber(entry);
        if (own <= 1) return;
        const auto pidfd = openPidfd(own);
        if (!pidfd) return;
        // Looked at again with the process in hand: the number may have become another's.
        const auto now = readEntry(proc_.get(), std::to_string(pid));
        if (now && now->numbers == entry.numbers && !now->ended) {
            (void)sendSignal(pidfd->get(), SIGKILL);
        }
    }

    UniqueFd proc_;
    pid_t self_ = 0;    // in /proc's numbers
    size_t depth_ = 1;  // of our own namespace below /proc's
    pid_t root_ = 0;    // in our own numbers
};

}  // namespace

Result<> killDescendants(pid_t root, std::chrono::milliseconds limit) {
    ARCA_TRY(const Tree tree, Tree::open(root));
    const auto deadline = std::chrono::steady_clock::now() + limit;
    timespec pause{0, 1'000'000};
    while (true) {
        ARCA_TRY(const size_t alive, tree.kill());
        if (alive == 0) return {};
        if (std::chrono::steady_clock::now() >= deadline) {
            return fail(Code::kDeadlineExceeded, std::to_string(alive) + " processes do not end");
        }
        (void)::nanosleep(&pause, nullptr);
        constexpr long kLongestNs = 20'000'000;
        pause.tv_nsec = std::min(pause.tv_nsec * 2, kLongestNs);
    }
}

}  // namespace arca::base

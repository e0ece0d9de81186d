#include "vminitd/vm_modules.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr int kLowPriority = 10;
constexpr char kOrderFile[] = "load-order";
constexpr std::string_view kTransport = "vmw_vsock_virtio_transport.";

Result<> loadModule(const std::string& path) {
    ARCA_TRY(const UniqueFd file, base::openAt(AT_FDCWD, path, O_RDONLY));
    // EEXIST: built in, or loaded by somebody else.
    if (::syscall(SYS_finit_module, file.get(), "", 0) != 0 && errno != EEXIST) {
        return failErrno("load module " + path);
    }
    return {};
}

}  // namespace

std::string_view moduleName(std::string_view file) {
    const size_t digits = file.find_first_not_of("0123456789");
    if (digits != std::string_view::npos && digits > 0 && file[digits] == '-') {
        file.remove_prefix(digits + 1);
    }
    return file.substr(0, file.find(".ko"));
}

size_t transportEnd(const std::vector<std::string>& names) {
    const auto transport = std::find_if(names.begin(), names.end(), [](const std::string& name) {
        return name.find(kTransport) != std::string::npos;
    });
    if (transport == names.end()) return names.size();
    return static_cast<size_t>(transport - names.begin()) + 1;
}

VmModules::VmModules(std::string folder) : folder_(std::move(folder)) {
    if (folder_.empty()) return;
    const auto order = base::readFile(folder_ + "/" + kOrderFile);
    if (!order) {
        if (order.error().sysErrno() != ENOENT) base::log::error(order.error().message());
        return;
    }
    for (const std::string_view line : base::split(*order, '\n')) {
        const std::string_view name = base::trim(line);
        if (name.empty()) continue;
        if (name.find('/') != std::string_view::npos) {
            base::log::error("load-order: " + base::printable(name) + ": not a plain file name");
            continue;
        }
        names_.emplace_back(name);
    }
}

VmModules::~VmModules() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        over_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void VmModules::load(size_t end) {
    for (; next_ < end; ++next_) {
        const auto done = loadModule(folder_ + "/" + names_[next_]);
        if (!done) base::log::error(done.error().message());
        reached(next_ + 1);
    }
}

void VmModules::loadTransport() {
    load(transportEnd(names_));
    told_ = next_;
}

void VmModules::loadRest(EventLoop& loop, std::chrono::milliseconds pause) {
    if (next_ == names_.size()) return;
    const auto deadline = std::chrono::steady_clock::now() + pause;
    thread_ = std::thread([this, &loop, deadline] {
        // The host's first calls come first.
        (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kLowPriority);
        while (next_ < names_.size() && waitWanted(deadline)) {
            load(next_ + 1);
            loop.post([this, count = next_] { tell(count); });
        }
    });
}

size_t VmModules::endOf(const DriverNeed& need) const {
    if (need.kind == DriverNeed::Kind::kNone) return 0;
    if (need.kind == DriverNeed::Kind::kAll) return names_.size();
    for (size_t end = names_.size(); end > 0; --end) {
        const std::string_view name = moduleName(names_[end - 1]);
        if (std::find(need.modules.begin(), need.modules.end(), name) != need.modules.end()) {
            return end;
        }
    }
    return 0;
}

void VmModules::reached(size_t count) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        count_ = count;
    }
    changed_.notify_all();
}

void VmModules::tell(size_t count) {
    told_ = count;
    for (Waiting& one : std::exchange(waiting_, {})) {
        if (one.end <= told_) {
            one.task();
        } else {
            waiting_.push_back(std::move(one));
        }
    }
}

void VmModules::want(size_t end) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        wanted_ = std::max(wanted_, end);
    }
    changed_.notify_all();
}

bool VmModules::waitWanted(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock<std::mutex> lock(mutex_);
    (void)changed_.wait_until(lock, deadline, [this] { return over_ || wanted_ > count_; });
    return !over_;
}

void VmModules::whenLoaded(const DriverNeed& need, std::function<void()> task) {
    const size_t end = endOf(need);
    if (end <= told_) return task();
    want(end);
    waiting_.push_back({end, std::move(task)});
}

void VmModules::afterAll(std::function<void()> task) {
    if (names_.size() <= told_) return task();
    waiting_.push_back({names_.size(), std::move(task)});
}

void VmModules::waitLoaded(const DriverNeed& need) {
    const size_t end = endOf(need);
    want(end);
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this, end] { return count_ >= end; });
}

}  // namespace arca::vminitd

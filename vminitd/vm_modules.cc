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
    if (thread_.joinable()) thread_.join();
}

void VmModules::load(size_t end) {
    for (; next_ < end; ++next_) {
        const auto done = loadModule(folder_ + "/" + names_[next_]);
        if (!done) base::log::error(done.error().message());
    }
}

void VmModules::loadTransport() {
    load(transportEnd(names_));
}

void VmModules::loadRest(EventLoop& loop) {
    if (next_ == names_.size()) return loaded();
    thread_ = std::thread([this, &loop] {
        // The host's first calls come first; who needs the drivers waits for them in idle time.
        (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kLowPriority);
        load(names_.size());
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            done_ = true;
        }
        changed_.notify_all();
        loop.post([this] { loaded(); });
    });
}

void VmModules::loaded() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        done_ = true;
    }
    told_ = true;
    for (const auto& task : std::exchange(waiting_, {})) task();
}

void VmModules::whenLoaded(std::function<void()> task) {
    if (told_) return task();
    waiting_.push_back(std::move(task));
}

void VmModules::waitLoaded() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
}

}  // namespace arca::vminitd

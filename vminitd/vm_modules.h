// Kernel modules of the guest's image, for kernels that have their drivers as modules.
//
// /lib/modules/arca/load-order names the files, one a line, each after what it needs. A kernel with
// everything built in comes without that folder. What the host's connection needs is loaded first,
// the rest while the service is up already.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "vminitd/driver_need.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

// How many of `names`, in load order, have to be loaded before the host can be reached: up to the
// transport of vsock; all of them where that is not among them, for any may be what is needed.
size_t transportEnd(const std::vector<std::string>& names);

// "virtiofs" of "07-virtiofs.ko".
std::string_view moduleName(std::string_view file);

class VmModules {
 public:
    // `folder`: where load-order is; empty: there is nothing to load.
    explicit VmModules(std::string folder);
    ~VmModules();

    // Loads up to the transport of vsock. A module that cannot be loaded is logged.
    void loadTransport();
    // Loads what is left on a thread of its own: when somebody waits for it, or else after `pause`,
    // when the first container has been started most likely.
    void loadRest(EventLoop& loop, std::chrono::milliseconds pause);

    // Calls `task` on the loop when what it needs is loaded, at once if it is. A module that is not
    // among those of the image is built in, or nobody has it: not waited for. Loop thread only.
    void whenLoaded(const DriverNeed& need, std::function<void()> task);
    // The same when everything is loaded, for what is in no hurry.
    void afterAll(std::function<void()> task);
    // Waits for it. From any thread but the loop's, once loadRest() was called.
    void waitLoaded(const DriverNeed& need);

 private:
    struct Waiting {
        size_t end;
        std::function<void()> task;
    };

    void load(size_t end);
    // How many modules have to be loaded.
    [[nodiscard]] size_t endOf(const DriverNeed& need) const;
    // So many are, or could not be.
    void reached(size_t count);
    void tell(size_t count);
    // Somebody waits until so many are loaded.
    void want(size_t end);
    // Until the next one is wanted; false: nobody needs anything any more.
    bool waitWanted(std::chrono::steady_clock::time_point deadline);

    std::string folder_;
    std::vector<std::string> names_;
    size_t next_ = 0;  // of the thread that loads
    std::thread thread_;
    size_t told_ = 0;  // loop thread only
    std::vector<Waiting> waiting_;
    std::mutex mutex_;
    std::condition_variable changed_;
    size_t count_ = 0;   // guarded by mutex_
    size_t wanted_ = 0;  // guarded by mutex_
    bool over_ = false;  // guarded by mutex_
};

}  // namespace arca::vminitd

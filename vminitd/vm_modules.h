// Kernel modules of the guest's image, for kernels that have their drivers as modules.
//
// /lib/modules/arca/load-order names the files, one a line, each after what it needs. A kernel with
// everything built in comes without that folder. What the host's connection needs is loaded first,
// the rest while the service is up already.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vminitd/event_loop.h"

namespace arca::vminitd {

// How many of `names`, in load order, have to be loaded before the host can be reached: up to the
// transport of vsock; all of them where that is not among them, for any may be what is needed.
size_t transportEnd(const std::vector<std::string>& names);

class VmModules {
 public:
    // `folder`: where load-order is; empty: there is nothing to load.
    explicit VmModules(std::string folder);
    ~VmModules();

    // Loads up to the transport of vsock. A module that cannot be loaded is logged.
    void loadTransport();
    // Loads what is left on a thread of its own.
    void loadRest(EventLoop& loop);

    // Calls `task` on the loop when everything is loaded, at once if it is. Loop thread only.
    void whenLoaded(std::function<void()> task);
    // Waits until everything is loaded. From any thread but the loop's.
    void waitLoaded();

 private:
    void load(size_t end);
    void loaded();

    std::string folder_;
    std::vector<std::string> names_;
    size_t next_ = 0;
    std::thread thread_;
    bool told_ = false;  // loop thread only
    std::vector<std::function<void()>> waiting_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;  // guarded by mutex_
};

}  // namespace arca::vminitd

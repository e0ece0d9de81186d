// The stand-in of a guest's process, as the CLI makes it: see runtime/standin/main.cc.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/process.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/spec.h"

namespace arca::runtime {

class StandIn {
 public:
    struct Options {
        std::string title;              // for ps
        std::string network_namespace;  // a path to join; empty: see below
        bool new_network_namespace = false;
        int terminal = -1;  // the slave that becomes its controlling terminal; borrowed
        int log = -1;       // where it says why it ended; borrowed
    };
    // Starts it as our child and waits until it is in its namespaces. Destroying it before
    // release() kills and reaps it.
    static base::Result<StandIn> start(const Options& options);
    StandIn(StandIn&& other) noexcept;
    StandIn& operator=(StandIn&&) = delete;
    ~StandIn();

    [[nodiscard]] const base::ProcessIdentity& identity() const { return identity_; }
    // The monitor's end of the lease. To be closed here once the monitor has it.
    [[nodiscard]] base::UniqueFd& lease() { return lease_; }
    // From here on it lives by itself.
    void release() { identity_.pid = 0; }

 private:
    StandIn() = default;
    base::ProcessIdentity identity_;
    base::UniqueFd lease_;
};

}  // namespace arca::runtime

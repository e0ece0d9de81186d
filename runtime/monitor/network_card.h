// The network card of a machine that we boot: a TAP device whose other end is QEMU's.
//
// It waits in a network namespace of its own, where nobody else's eyes fall on it, until a guest's
// network has an interface for it.
#pragma once

#include <atomic>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "network/ingress.h"
#include "network/snapshot.h"

namespace arca::runtime {

class NetworkCard {
 public:
    // What the guest finds it by. Locally administered; its wire ends at this host.
    static constexpr char kMac[] = "02:61:72:63:61:01";
    // Of the TAP device, where it is joined to an interface.
    static constexpr char kName[] = "arca-card";

    // kUnsupported and EPERM: this user or this kernel makes no TAP devices.
    static base::Result<std::unique_ptr<NetworkCard>> make();

    // For QEMU, which may be started again with it. With offload headers.
    [[nodiscard]] int device() const { return device_.get(); }

    // That the card is joined to an interface: ends with the object.
    class Joint {
     public:
        Joint() = default;
        Joint(Joint&& other) noexcept = default;
        Joint& operator=(Joint&& other) noexcept = default;
        ~Joint() = default;

     private:
        friend class NetworkCard;
        struct Inside;
        struct End {
            void operator()(Inside* inside) const;
        };
        std::unique_ptr<Inside, End> inside_;
    };

    // Moves the TAP device to the calling thread's network namespace, where every frame that comes
    // in on `interface` goes to the guest from now on, and the guest's leave over it. The card must
    // outlive the joint. kFailedPrecondition when it is joined to another one.
    base::Result<Joint> join(const network::Interface& interface);
    [[nodiscard]] bool isFree() const { return !joined_; }

 private:
    NetworkCard(base::UniqueFd device, base::UniqueFd home);

    const base::UniqueFd device_;
    const base::UniqueFd home_;  // the network namespace where it waits
    std::atomic<bool> joined_{false};
};

}  // namespace arca::runtime

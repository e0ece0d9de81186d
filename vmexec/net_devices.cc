#include "vmexec/net_devices.h"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/attr.h>
#include <netlink/cache.h>
#include <netlink/errno.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/files.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using network::failNetlink;
using network::InterfaceAddress;
using network::Link;
using network::Message;

namespace {

constexpr char kOwnNamespace[] = "/proc/self/ns/net";

std::string named(const std::string& name) {
    return "network device " + name;
}

// The index of the interface `name`; 0 when there is none.
Result<int> indexOf(nl_sock* socket, const std::string& name) {
    rtnl_link* raw = nullptr;
    const int error = rtnl_link_get_kernel(socket, 0, name.c_str(), &raw);
    const Link link(raw);
    if (error == -NLE_NODEV || error == -NLE_OBJ_NOTFOUND) return 0;
    if (error < 0) return failNetlink(named(name), error);
    return rtnl_link_get_ifindex(link.get());
}

// The kernel finds a free number for such a name.
bool isTemplate(const std::string& name) {
    return name.find("%d") != std::string::npos;
}

// An address as it is to be set in the container: without what belongs to the old name and number.
Result<InterfaceAddress> sameAddress(rtnl_addr* old) {
    constexpr unsigned kKeptFlags =
        IFA_F_PERMANENT | IFA_F_NODAD | IFA_F_HOMEADDRESS | IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN;
    InterfaceAddress same(rtnl_addr_alloc());
    if (!same) return failErrno("copy an address", ENOMEM);
    int error = rtnl_addr_set_local(same.get(), rtnl_addr_get_local(old));
    if (nl_addr* peer = rtnl_addr_get_peer(old); peer != nullptr && error >= 0) {
        error = rtnl_addr_set_peer(same.get(), peer);
    }
    if (nl_addr* broadcast = rtnl_addr_get_broadcast(old); broadcast != nullptr && error >= 0) {
        error = rtnl_addr_set_broadcast(same.get(), broadcast);
    }
    if (error < 0) return failNetlink("copy an address", error);
    rtnl_addr_set_prefixlen(same.get(), rtnl_addr_get_prefixlen(old));
    rtnl_addr_set_scope(same.get(), RT_SCOPE_UNIVERSE);
    rtnl_addr_set_flags(same.get(), rtnl_addr_get_flags(old) & kKeptFlags);
    return same;
}

}  // namespace

Result<NetDevices> NetDevices::open(const std::map<std::string, spec::NetDevice>& devices) {
    NetDevices all;
    if (devices.empty()) return all;
    ARCA_TRY(all.host_ns_, base::openAt(AT_FDCWD, kOwnNamespace, O_RDONLY));
    ARCA_TRY(all.host_, network::openNetlink());
    for (const auto& [name, config] : devices) {
        Device device;
        device.name = name;
        device.new_name = config.name.empty() ? name : config.name;
        ARCA_CHECK(all.findDevice(device));
        all.devices_.push_back(std::move(device));
    }
    return all;
}

Result<> NetDevices::findDevice(Device& device) {
    ARCA_TRY(device.index, indexOf(host_.get(), device.name));
    if (device.index == 0) {
        return fail(Code::kNotFound, named(device.name) + ": there is no such interface", ENODEV);
    }
    return readAddresses(device);
}

// The move takes every address away. Those that the specification wants back: permanent, global.
Result<> NetDevices::readAddresses(Device& device) {
    const auto take = [&](rtnl_addr* address) -> Result<> {
        if (rtnl_addr_get_ifindex(address) != device.index ||
            rtnl_addr_get_scope(address) != RT_SCOPE_UNIVERSE ||
            (rtnl_addr_get_flags(address) & IFA_F_PERMANENT) == 0) {
            return {};
        }
        ARCA_TRY(device.addresses.emplace_back(), sameAddress(address));
        return {};
    };
    return network::forEachObject<rtnl_addr>(host_.get(), rtnl_addr_alloc_cache,
                                             "the addresses of " + named(device.name), take);
}

Result<> NetDevices::moveTo(int init_pidfd) {
    if (devices_.empty()) return {};
    if (::setns(init_pidfd, CLONE_NEWNET) != 0)
        return failErrno("enter the container's network namespace");
    ARCA_TRY(const UniqueFd container_ns, base::openAt(AT_FDCWD, kOwnNamespace, O_RDONLY));
    ARCA_TRY(const bool same, base::isSameFile(container_ns.get(), host_ns_.get()));
    if (same) {
        return fail(Code::kInvalidArgument,
                    "netDevices: the container's network namespace is the runtime's own");
    }
    ARCA_TRY(const network::Socket container, network::openNetlink());
    for (const Device& device : devices_) {
        if (isTemplate(device.new_name)) continue;
        ARCA_TRY(const int taken, indexOf(container.get(), device.new_name));
        if (taken == 0) continue;
        return fail(Code::kAlreadyExists,
                    named(device.name) + ": the container's network namespace has an interface " +
                        device.new_name + " already",
                    EEXIST);
    }
    for (const Device& device : devices_) {
        ARCA_CHECK(move(container.get(), container_ns.get(), device));
    }
    return {};
}

// Gives the number that it has in the container. That can be another than here; told which, it is
// known afterwards even where the kernel chooses the name.
Result<int> NetDevices::moveLink(const Device& device, int container_ns) {
    const std::string what = "move " + named(device.name);
    constexpr int kTries = 64;
    int index = device.index;
    for (int i = 0;; ++i) {
        const Link now(rtnl_link_alloc());
        const Link wanted(rtnl_link_alloc());
        if (!now || !wanted) return failErrno(what, ENOMEM);
        rtnl_link_set_ifindex(now.get(), device.index);
        rtnl_link_set_ns_fd(wanted.get(), container_ns);
        rtnl_link_set_name(wanted.get(), device.new_name.c_str());
        nl_msg* raw = nullptr;
        int error = rtnl_link_build_change_request(now.get(), wanted.get(), 0, &raw);
        const Message message(raw);
        // libnl has no word for it.
        if (error >= 0) {
            error = nla_put_u32(raw, IFLA_NEW_IFINDEX, static_cast<uint32_t>(index));
        }
        if (error < 0) return failNetlink(what, error);
        auto moved = network::ask(host_.get(), message.get(), what);
        if (moved) return index;
        if (moved.error().sysErrno() != EBUSY || i == kTries) return fail(std::move(moved).error());
        index += 1 + (i << 4U);
    }
}

Result<> NetDevices::move(nl_sock* container, int container_ns, const Device& device) {
    ARCA_TRY(const int index, moveLink(device, container_ns));
    for (const InterfaceAddress& address : device.addresses) {
        const std::string what = "give its address to " + named(device.name);
        rtnl_addr_set_ifindex(address.get(), index);
        nl_msg* raw = nullptr;
        const int error =
            rtnl_addr_build_add_request(address.get(), NLM_F_CREATE | NLM_F_EXCL, &raw);
        if (error < 0) return failNetlink(what, error);
        const Message message(raw);
        ARCA_CHECK(network::ask(container, message.get(), what));
    }
    return network::takeUp(container, static_cast<unsigned>(index), "set up " + named(device.name));
}

}  // namespace arca::vmexec

#include "vmexec/net_devices.h"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/files.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr char kOwnNamespace[] = "/proc/self/ns/net";

std::string named(const std::string& name) {
    return "network device " + name;
}

// The index of the interface `name`; 0 when there is none.
Result<int> indexOf(Netlink& socket, const std::string& name) {
    ifinfomsg info{};
    info.ifi_family = AF_UNSPEC;
    NetlinkRequest request(RTM_GETLINK, NLM_F_ACK, info);
    request.attribute(IFLA_IFNAME, std::string_view(name));
    int index = 0;
    auto found = socket.call(std::move(request), named(name), [&](const NetlinkMessage& message) {
        const auto* link = fixedPart<ifinfomsg>(message);
        if (message.type == RTM_NEWLINK && link != nullptr) index = link->ifi_index;
    });
    if (!found && found.error().sysErrno() != ENODEV) return fail(std::move(found).error());
    return index;
}

Result<bool> isSameFile(int a, int b) {
    struct stat first {};
    struct stat second {};
    if (::fstat(a, &first) != 0 || ::fstat(b, &second) != 0)
        return failErrno("stat a network namespace");
    return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

// The kernel finds a free number for such a name.
bool isTemplate(const std::string& name) {
    return name.find("%d") != std::string::npos;
}

}  // namespace

Result<NetDevices> NetDevices::open(const std::map<std::string, spec::NetDevice>& devices) {
    NetDevices all;
    if (devices.empty()) return all;
    ARCA_TRY(all.host_ns_, base::openAt(AT_FDCWD, kOwnNamespace, O_RDONLY));
    ARCA_TRY(all.host_, Netlink::open());
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
    ARCA_TRY(device.index, indexOf(*host_, device.name));
    if (device.index == 0) {
        return fail(Code::kNotFound, named(device.name) + ": there is no such interface", ENODEV);
    }
    return readAddresses(device);
}

// The move takes every address away. Those that the specification wants back: permanent, global.
Result<> NetDevices::readAddresses(Device& device) {
    constexpr uint32_t kKeptFlags =
        IFA_F_PERMANENT | IFA_F_NODAD | IFA_F_HOMEADDRESS | IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN;
    ifaddrmsg all{};
    all.ifa_family = AF_UNSPEC;
    NetlinkRequest request(RTM_GETADDR, NLM_F_DUMP, all);
    const auto take = [&](const NetlinkMessage& message) {
        const auto* info = fixedPart<ifaddrmsg>(message);
        if (message.type != RTM_NEWADDR || info == nullptr) return;
        if (info->ifa_index != static_cast<uint32_t>(device.index)) return;
        if (info->ifa_scope != RT_SCOPE_UNIVERSE) return;
        Address address;
        address.family = info->ifa_family;
        address.prefix_length = info->ifa_prefixlen;
        address.flags = info->ifa_flags;
        forEachAttribute(message, sizeof *info, [&](uint16_t type, Bytes value) {
            if (type == IFA_FLAGS && value.size() == sizeof address.flags) {
                std::copy(value.begin(), value.end(), reinterpret_cast<char*>(&address.flags));
            }
            if (type == IFA_ADDRESS || type == IFA_LOCAL || type == IFA_BROADCAST) {
                address.attributes.emplace_back(type,
                                                std::vector<char>(value.begin(), value.end()));
            }
        });
        if ((address.flags & IFA_F_PERMANENT) == 0) return;
        address.flags &= kKeptFlags;
        device.addresses.push_back(std::move(address));
    };
    return host_->call(std::move(request), "read the addresses of " + named(device.name), take);
}

Result<> NetDevices::moveTo(int init_pidfd) {
    if (devices_.empty()) return {};
    if (::setns(init_pidfd, CLONE_NEWNET) != 0)
        return failErrno("enter the container's network namespace");
    ARCA_TRY(const UniqueFd container_ns, base::openAt(AT_FDCWD, kOwnNamespace, O_RDONLY));
    ARCA_TRY(const bool same, isSameFile(container_ns.get(), host_ns_.get()));
    if (same) {
        return fail(Code::kInvalidArgument,
                    "netDevices: the container's network namespace is the runtime's own");
    }
    ARCA_TRY(Netlink container, Netlink::open());
    for (const Device& device : devices_) {
        if (isTemplate(device.new_name)) continue;
        ARCA_TRY(const int taken, indexOf(container, device.new_name));
        if (taken == 0) continue;
        return fail(Code::kAlreadyExists,
                    named(device.name) + ": the container's network namespace has an interface " +
                        device.new_name + " already",
                    EEXIST);
    }
    for (const Device& device : devices_) {
        ARCA_CHECK(move(*host_, container, container_ns.get(), device));
    }
    return {};
}

Result<> NetDevices::move(Netlink& host, Netlink& container, int container_ns,
                          const Device& device) {
    ifinfomsg link{};
    link.ifi_family = AF_UNSPEC;
    link.ifi_index = device.index;
    NetlinkRequest request(RTM_SETLINK, NLM_F_ACK, link);
    request.attribute(IFLA_NET_NS_FD, static_cast<uint32_t>(container_ns));
    request.attribute(IFLA_IFNAME, std::string_view(device.new_name));
    // The number it has in the container can be another; told which, it is known afterwards even
    // where the kernel chooses the name.
    int index = device.index;
    constexpr int kTries = 64;
    for (int i = 0;; ++i) {
        NetlinkRequest with_index = request;
        with_index.attribute(IFLA_NEW_IFINDEX, static_cast<uint32_t>(index));
        auto moved = host.call(std::move(with_index), "move " + named(device.name));
        if (moved) break;
        if (moved.error().sysErrno() != EBUSY || i == kTries) return moved;
        index += 1 + (i << 4U);
    }
    for (const Address& address : device.addresses) {
        ifaddrmsg info{};
        info.ifa_family = address.family;
        info.ifa_prefixlen = address.prefix_length;
        info.ifa_scope = RT_SCOPE_UNIVERSE;
        info.ifa_index = static_cast<uint32_t>(index);
        NetlinkRequest add(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, info);
        add.attribute(IFA_FLAGS, address.flags);
        for (const auto& [type, value] : address.attributes) add.attribute(type, Bytes(value));
        ARCA_CHECK(container.call(std::move(add), "give its address to " + named(device.name)));
    }
    link.ifi_index = index;
    link.ifi_flags = IFF_UP;
    link.ifi_change = IFF_UP;
    return container.call(NetlinkRequest(RTM_SETLINK, NLM_F_ACK, link),
                          "set up " + named(device.name));
}

}  // namespace arca::vmexec

#include "network/name_space.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "base/files.h"
#include "base/strings.h"
#include "base/thread.h"
#include "network/rtnl.h"

namespace arca::network {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// What `work` gives, on a thread that may leave the namespace that this one is in.
template <typename T>
Result<T> elsewhere(const std::function<Result<T>()>& work) {
    Result<T> done{T()};
    ARCA_TRY(std::thread thread, base::startThread([&] { done = work(); }));
    thread.join();
    return done;
}

// A netlink socket stays in the namespace that it was made in.
Result<Socket> openNetlinkIn(int name_space) {
    return elsewhere<Socket>([&]() -> Result<Socket> {
        if (::setns(name_space, CLONE_NEWNET) != 0) return failErrno("enter a network namespace");
        return openNetlink();
    });
}

// The first for which `is_it` holds.
Result<Found> find(int name_space, const std::string& what,
                   const std::function<bool(rtnl_link*)>& is_it) {
    ARCA_TRY(const Socket socket, openNetlinkIn(name_space));
    std::optional<Found> found;
    const auto look = [&](rtnl_link* link) -> Result<> {
        if (found || !is_it(link)) return {};
        found = {static_cast<unsigned>(rtnl_link_get_ifindex(link)), rtnl_link_get_name(link)};
        return {};
    };
    ARCA_CHECK(forEachObject<rtnl_link>(socket.get(), allLinks, "interfaces", look));
    if (found) return std::move(*found);
    return fail(Code::kNotFound, what + ": there is no such interface");
}

}  // namespace

Result<UniqueFd> openOwnNamespace() {
    return base::openAt(AT_FDCWD, "/proc/thread-self/ns/net", O_RDONLY);
}

Result<UniqueFd> makeNamespace(const std::function<Result<>()>& inside) {
    return elsewhere<UniqueFd>([&]() -> Result<UniqueFd> {
        if (::unshare(CLONE_NEWNET) != 0) return failErrno("make a network namespace");
        ARCA_CHECK(inside());
        return openOwnNamespace();
    });
}

Result<Found> findByName(int name_space, const std::string& name) {
    return find(name_space, "interface " + base::printable(name),
                [&](rtnl_link* link) { return name == rtnl_link_get_name(link); });
}

Result<Found> findByMac(int name_space, const std::string& mac) {
    return find(name_space, "interface with MAC address " + base::printable(mac),
                [&](rtnl_link* link) { return mac == textOf(rtnl_link_get_addr(link)); });
}

Result<> moveInterface(int from, unsigned index, int to, const std::string& name) {
    ARCA_TRY(const Socket socket, openNetlinkIn(from));
    const std::string what =
        "move interface " + std::to_string(index) + " to another network namespace as " + name;
    const Link wanted(rtnl_link_alloc());
    if (!wanted) return failErrno(what, ENOMEM);
    rtnl_link_set_ns_fd(wanted.get(), to);
    rtnl_link_set_name(wanted.get(), name.c_str());
    return changeLink(socket.get(), index, what, wanted.get());
}

}  // namespace arca::network

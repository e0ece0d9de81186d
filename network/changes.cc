#include "network/changes.h"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "network/rtnl.h"

namespace arca::network {

using base::Result;

Result<Changes> Changes::open() {
    ARCA_TRY(Socket socket, openNetlink());
    for (const int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                            RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE}) {
        const int error = nl_socket_add_membership(socket.get(), group);
        if (error < 0) return failNetlink("listen for changes of interfaces", error);
    }
    return Changes(std::shared_ptr<nl_sock>(std::move(socket)));
}

int Changes::fd() const {
    return nl_socket_get_fd(socket_.get());
}

void Changes::drain() {
    std::array<char, 8192> buffer{};
    // ENOBUFS, that some were lost, is word of a change as well.
    while (::recv(fd(), buffer.data(), buffer.size(), MSG_DONTWAIT) >= 0 || errno == ENOBUFS ||
           errno == EINTR) {
    }
}

}  // namespace arca::network

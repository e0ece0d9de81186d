#include "runtime/monitor/network_card.h"

#include <fcntl.h>
#include <net/if.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/scope_exit.h"
#include "network/interface.h"
#include "network/name_space.h"
#include "network/tap_device.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

// No frame of this host's own goes to the guest: no neighbour discovery, no multicast reports.
Result<> silence(const std::string& name) {
    auto done =
        base::writeControlFile(AT_FDCWD, "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6", "1");
    // A kernel without IPv6.
    if (!done && done.error().sysErrno() == ENOENT) return {};
    return done;
}

}  // namespace

struct NetworkCard::Joint::Inside {
    NetworkCard& card;
    UniqueFd here;  // the network namespace
    network::IngressRule from_guest{};
    network::IngressRule to_guest{};
};

void NetworkCard::Joint::End::operator()(Inside* inside) const {
    const std::unique_ptr<Inside> owned(inside);
    NetworkCard& card = owned->card;
    owned->from_guest = {};
    owned->to_guest = {};
    const auto home = [&]() -> Result<> {
        ARCA_TRY(const network::Found tap, network::findByName(owned->here.get(), kName));
        return network::moveInterface(owned->here.get(), tap.index, card.home_.get(), kName);
    }();
    if (home) {
        card.joined_ = false;
    } else {
        base::log::warning("take back the network card: " + home.error().message());
    }
}

NetworkCard::NetworkCard(UniqueFd device, UniqueFd home)
    : device_(std::move(device)), home_(std::move(home)) {}

Result<std::unique_ptr<NetworkCard>> NetworkCard::make() {
    UniqueFd device;
    ARCA_TRY(UniqueFd home, network::makeNamespace([&]() -> Result<> {
                 ARCA_TRY(device, network::makeTap(kName, network::VnetHeader::kYes));
                 return {};
             }));
    return std::unique_ptr<NetworkCard>(new NetworkCard(std::move(device), std::move(home)));
}

Result<NetworkCard::Joint> NetworkCard::join(const network::Interface& interface) {
    if (joined_.exchange(true)) {
        return fail(Code::kFailedPrecondition, "the network card has an interface already");
    }
    base::ScopeExit not_joined([&] { joined_ = false; });
    ARCA_TRY(UniqueFd here, network::openOwnNamespace());
    ARCA_TRY(const network::Found waiting, network::findByName(home_.get(), kName));
    ARCA_CHECK(network::moveInterface(home_.get(), waiting.index, here.get(), kName));
    not_joined.release();
    Joint joint;
    joint.inside_.reset(new Joint::Inside{*this, std::move(here)});
    const unsigned tap = ::if_nametoindex(kName);
    ARCA_CHECK(silence(kName));
    ARCA_TRY(joint.inside_->from_guest, network::IngressRule::redirect(tap, interface.index));
    ARCA_TRY(joint.inside_->to_guest, network::IngressRule::redirect(interface.index, tap));
    ARCA_CHECK(network::setLink(kName, true, interface.mtu));
    return joint;
}

}  // namespace arca::runtime

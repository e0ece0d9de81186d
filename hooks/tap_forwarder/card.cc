#include "hooks/tap_forwarder/card.h"

#include <fcntl.h>
#include <net/if.h>

#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "network/interface.h"
#include "network/name_space.h"
#include "network/rtnl.h"
#include "network/snapshot.h"

namespace arca::tap_forwarder {

using base::Code;
using base::fail;
using base::Result;

namespace {

constexpr char kHomeNamespace[] = "/proc/1/ns/net";
constexpr uint32_t kHomeMtu = 1500;

}  // namespace

Card::Card(std::string mac, std::string name, Ends ends)
    : mac_(std::move(mac)), name_(std::move(name)), ends_(std::move(ends)) {}

Result<std::unique_ptr<Card>> Card::take(const std::string& mac, const std::string& name) {
    Ends ends;
    ARCA_TRY(ends.home, base::openAt(AT_FDCWD, kHomeNamespace, O_RDONLY));
    ARCA_TRY(ends.here, network::openOwnNamespace());
    ARCA_TRY(const network::Found card, network::findByMac(ends.home.get(), mac));
    ends.home_name = card.name;
    if (::if_nametoindex(name.c_str()) != 0) {
        return fail(Code::kAlreadyExists,
                    "take a network card as " + name + ": there is an interface of that name",
                    EEXIST);
    }
    ARCA_CHECK(network::moveInterface(ends.home.get(), card.index, ends.here.get(), name));
    return std::unique_ptr<Card>(new Card(mac, name, std::move(ends)));
}

Result<> Card::giveBack() const {
    ARCA_CHECK(network::setLink(name_, false, kHomeMtu));
    // By its own address it is found the next time.
    ARCA_CHECK(network::setMac(name_, mac_));
    const unsigned index = ::if_nametoindex(name_.c_str());
    return network::moveInterface(ends_.here.get(), index, ends_.home.get(), ends_.home_name);
}

Card::~Card() {
    auto done = giveBack();
    if (!done) base::log::warning("give back " + name_ + ": " + done.error().message());
}

PacketCounts Card::counts() const {
    const auto socket = network::openNetlink();
    if (!socket) return {};
    rtnl_link* raw = nullptr;
    if (rtnl_link_get_kernel(socket->get(), 0, name_.c_str(), &raw) < 0) return {};
    const network::Link link(raw);
    const auto count = [&](rtnl_link_stat_id_t id) { return rtnl_link_get_stat(raw, id); };
    return {.packets_sent = count(RTNL_LINK_TX_PACKETS),
            .packets_received = count(RTNL_LINK_RX_PACKETS),
            .bytes_sent = count(RTNL_LINK_TX_BYTES),
            .bytes_received = count(RTNL_LINK_RX_BYTES),
            .send_errors = count(RTNL_LINK_TX_ERRORS),
            .receive_errors = count(RTNL_LINK_RX_ERRORS)};
}

}  // namespace arca::tap_forwarder

// Interfaces are found in other namespaces and moved between them; a joint rule carries frames.
#include "network/name_space.h"

#include <net/if.h>
#include <sched.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/namespaces_test.h"
#include "network/snapshot.h"
#include "network/tap_device.h"

namespace arca::network {
namespace {

using base::Claims;
using base::inNamespaces;
using base::Result;
using base::UniqueFd;

void moves(Claims& claims) {
    UniqueFd tap;
    const auto home = makeNamespace([&]() -> Result<> {
        ARCA_TRY(tap, makeTap("t0", VnetHeader::kNo));
        return setMac("t0", "02:00:00:00:00:07");
    });
    claims.works(home, "a namespace with a device");
    const auto here = openOwnNamespace();
    claims.works(here, "this namespace");
    if (!home || !here) return;
    claims.check(::if_nametoindex("t0") == 0, "the device is not here");
    const auto found = findByMac(home->get(), "02:00:00:00:00:07");
    claims.works(found, "by its MAC address");
    const auto named = findByName(home->get(), "t0");
    claims.check(found && named && found->index == named->index && found->name == "t0", "same");
    claims.check(
        findByMac(home->get(), "02:00:00:00:00:08").error().code() == base::Code::kNotFound,
        "no other has that address");
    if (!found) return;
    claims.works(moveInterface(home->get(), found->index, here->get(), "moved"), "move");
    claims.check(::if_nametoindex("moved") != 0, "it is here, under its new name");
    claims.check(!findByName(home->get(), "t0"), "and there no more");
    claims.works(moveInterface(here->get(), ::if_nametoindex("moved"), home->get(), "e%d"), "back");
    const auto again = findByName(home->get(), "e0");
    claims.works(again, "the first free number");
    if (!again) return;
    const auto taken = moveInterface(home->get(), again->index, here->get(), "lo");
    claims.check(!taken && taken.error().sysErrno() == EEXIST, "a name that is taken");
    tap.reset();
    claims.check(!findByName(home->get(), "e0"), "it goes with its descriptor, wherever it is");
}

void fails(Claims& claims) {
    const auto made =
        makeNamespace([]() -> Result<> { return base::fail(base::Code::kInternal, "not today"); });
    claims.check(!made && made.error().message() == "not today", "the inside's error");
    claims.check(!findByName(STDIN_FILENO, "lo"), "no namespace");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(network_name_space)

BOOST_AUTO_TEST_CASE(an_interface_moves_to_another_namespace_and_back) {
    if (!base::isRoot()) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(inNamespaces(moves) == "");
    BOOST_TEST(inNamespaces(fails) == "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::network

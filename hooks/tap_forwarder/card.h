// A network card of the machine that becomes one of the forwarder's devices.
//
// Where the host has given its VM a card for the container, no frame has to pass through this
// program: the card itself is moved into the network namespace.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "hooks/tap_forwarder/counters.h"

namespace arca::tap_forwarder {

class Card {
 public:
    // Takes the card with the MAC address `mac` from the network namespace of the machine's first
    // process into the calling process's, where it is `name`, and down. kNotFound when there is no
    // such card, kAlreadyExists when there is an interface of that name.
    static base::Result<std::unique_ptr<Card>> take(const std::string& mac,
                                                    const std::string& name);
    // Gives it back, as it was found.
    ~Card();
    Card(const Card&) = delete;
    Card& operator=(const Card&) = delete;

    // Since the machine was started.
    [[nodiscard]] PacketCounts counts() const;

 private:
    struct Ends {
        base::UniqueFd home, here;  // network namespaces
        std::string home_name;
    };
    Card(std::string mac, std::string name, Ends ends);
    base::Result<> giveBack() const;

    const std::string mac_;
    const std::string name_;
    const Ends ends_;
};

}  // namespace arca::tap_forwarder

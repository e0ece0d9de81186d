#include "base/crew.h"

#include <system_error>
#include <utility>

#include "base/exec_child.h"

namespace arca::base {

Crew::~Crew() {
    for (Hand& hand : hands_) {
        if (hand.thread.joinable()) hand.thread.join();
    }
}

void Crew::joinDone() {
    for (auto hand = hands_.begin(); hand != hands_.end();) {
        if (!hand->done) {
            ++hand;
            continue;
        }
        hand->thread.join();
        hand = hands_.erase(hand);
    }
}

bool Crew::start(std::function<void()> work) {
    joinDone();
    if (hands_.size() >= most_) return false;
    Hand& hand = hands_.emplace_back();
    try {
        const SignalsBlocked blocked;
        hand.thread = std::thread([&hand, work = std::move(work)] {
            work();
            hand.done = true;
        });
    } catch (const std::system_error&) {
        hands_.pop_back();
        return false;
    }
    return true;
}

}  // namespace arca::base

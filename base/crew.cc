#include "base/crew.h"

#include <utility>

#include "base/thread.h"

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
    auto started = startThread([&hand, work = std::move(work)] {
        work();
        hand.done = true;
    });
    if (started) {
        hand.thread = std::move(*started);
    } else {
        hands_.pop_back();
    }
    return started.has_value();
}

}  // namespace arca::base

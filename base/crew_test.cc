// Each work has a thread of its own, up to the limit, and none outlives the crew.
#include "base/crew.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <future>
#include <optional>

namespace arca::base {
namespace {

BOOST_AUTO_TEST_SUITE(crew)

BOOST_AUTO_TEST_CASE(no_more_than_so_many_work_at_once) {
    std::promise<void> open;
    const std::shared_future<void> gate = open.get_future().share();
    std::promise<void> first_began;
    std::promise<void> second_began;
    std::atomic<int> ended{0};
    std::optional<Crew> crew(std::in_place, 2U);
    for (auto* began : {&first_began, &second_began}) {
        BOOST_TEST(crew->start([&ended, gate, began] {
            began->set_value();
            gate.wait();
            ++ended;
        }));
    }
    // Both are under way at the same time.
    first_began.get_future().wait();
    second_began.get_future().wait();
    BOOST_TEST(!crew->start([&ended] { ++ended; }));
    open.set_value();
    crew.reset();
    BOOST_TEST(ended == 2);
}

BOOST_AUTO_TEST_CASE(one_that_has_ended_makes_room) {
    Crew crew(1);
    for (int i = 0; i < 100; ++i) {
        std::promise<void> done;
        // The thread may take a moment to be over after its work.
        while (!crew.start([&done] { done.set_value(); })) {
        }
        done.get_future().wait();
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base

// The supervisor looks at children of the main thread alone, on which test cases run.
#include "vminitd/supervisor.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <map>
#include <thread>

#include "base/subprocess.h"

namespace arca::vminitd {
namespace {

using namespace std::chrono_literals;

struct Fixture {
    Fixture() {
        sigset_t blocked;
        (void)::sigemptyset(&blocked);
        (void)::sigaddset(&blocked, SIGCHLD);
        (void)::pthread_sigmask(SIG_BLOCK, &blocked, &before);
        loop = std::move(*EventLoop::make());
        supervisor = std::move(*Supervisor::make(*loop));
        deadline = Timer(*loop, 30s, [this] {
            late = true;
            loop->stop();
        });
    }
    ~Fixture() { (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr); }

    // A child that ends at once, as asked.
    pid_t child(int code, int signal_number = 0) {
        const pid_t pid = ::fork();
        if (pid != 0) return pid;
        if (signal_number != 0) (void)::kill(::getpid(), signal_number);
        ::_exit(code);
    }
    // Runs until `count` exits were told.
    void run(size_t count) {
        wanted = count;
        if (told.size() < wanted) loop->run();
        BOOST_TEST_REQUIRE(!late);
    }
    Supervisor::Handler note(pid_t pid) {
        return [this, pid](const ExitStatus& status) {
            // While it is told, the child still holds its number.
            BOOST_TEST(::kill(pid, 0) == 0);
            told[pid] = status.code;
            if (told.size() == wanted) loop->stop();
        };
    }

    sigset_t before{};
    std::unique_ptr<EventLoop> loop;
    std::unique_ptr<Supervisor> supervisor;
    Timer deadline;
    bool late = false;
    size_t wanted = 0;
    std::map<pid_t, int> told;
};

BOOST_FIXTURE_TEST_SUITE(supervisor, Fixture)

BOOST_AUTO_TEST_CASE(codes_and_signals_are_told_and_children_reaped) {
    const std::map<pid_t, int> expected{{child(0), 0},
                                        {child(7), 7},
                                        {child(255), 255},
                                        {child(0, SIGTERM), 143},
                                        {child(0, SIGKILL), 137}};
    for (const auto& [pid, code] : expected) supervisor->expect(pid, note(pid));
    run(expected.size());
    BOOST_TEST((told == expected));
    // The last one is reaped right after it was told.
    loop->post([this] { loop->stop(); });
    loop->run();
    BOOST_TEST(!Supervisor::hasChildren());
    BOOST_TEST((::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD));
}

BOOST_AUTO_TEST_CASE(what_nobody_expects_is_reaped_all_the_same) {
    const pid_t stranger = child(1);
    const pid_t forgotten = child(2);
    const pid_t known = child(3);
    supervisor->expect(forgotten, note(forgotten));
    supervisor->forget(forgotten);
    supervisor->expect(known, note(known));
    run(1);
    BOOST_TEST(!told.contains(stranger));
    retryUntil(
        *loop, 10s, [] { return !Supervisor::hasChildren(); }, [this](bool) { loop->stop(); });
    loop->run();
    BOOST_TEST((::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD));
}

BOOST_AUTO_TEST_CASE(children_of_other_threads_are_left_to_them) {
    std::vector<std::thread> threads;
    std::atomic<int> good{0};
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&good, i] {
            for (int round = 0; round < 20; ++round) {
                const auto outcome =
                    base::runCommand({.path = "/bin/sh",
                                      .args = {"sh", "-c", "exit " + std::to_string(i + 10)},
                                      .env = {},
                                      .cwd = "",
                                      .input = "",
                                      .timeout = std::nullopt});
                if (outcome && outcome->exit_code == i + 10) ++good;
            }
        });
    }
    std::thread end([&] {
        for (std::thread& thread : threads) thread.join();
        loop->post([this] { loop->stop(); });
    });
    loop->run();
    end.join();
    BOOST_TEST(!late);
    BOOST_TEST(good == 80);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd

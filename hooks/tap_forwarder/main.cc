// arca-tap-forwarder as a program of its own, for guests that are not of this project.
#include <exception>

#include "base/log.h"
#include "hooks/tap_forwarder/program.h"

int main(int argc, char** argv) {
    try {
        return arca::tap_forwarder::runForwarder({argv + 1, argv + argc});
    } catch (const std::exception& e) {
        arca::base::log::error(e.what());
        return 1;
    }
}

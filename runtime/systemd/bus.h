// systemd's manager over D-Bus: starts, changes and stops the scope of a container.
//
// Used by commands with --systemd-cgroup, and by those on containers that were created so; nothing
// of it runs otherwise. One thread, blocking calls with deadlines. Source:
// org.freedesktop.systemd1(5).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/result.h"
#include "runtime/systemd/scope.h"

struct DBusConnection;  // libdbus's

namespace arca::runtime::systemd {

class Manager {
 public:
    // The manager of the system; for another user than root, of that user's session.
    // kFailedPrecondition when there is none: kUnavailable is an agent's that has gone, after which
    // everything is tried again.
    static base::Result<Manager> connect();

    // Starts the scope with `pid` in it and waits until systemd has moved it there. Gives the
    // cgroup's path, from the root of the hierarchy. After an error there is no such scope, but the
    // one that was there before.
    base::Result<std::string> startScope(const ScopeName& name, Properties properties, pid_t pid);

    // Changes a running unit until the next boot.
    base::Result<> setProperties(const std::string& unit, const Properties& properties);

    // Ends what is left in the unit, waits, and has systemd forget a failure. None: no error.
    base::Result<> stop(const std::string& unit);

 private:
    struct Closer {
        void operator()(DBusConnection* connection) const noexcept;
    };
    using Connection = std::unique_ptr<DBusConnection, Closer>;
    // nullptr, and the reason in `why`, when nobody is there or lets us in.
    static Connection open(const std::string& address, std::string& why);
    Manager(Connection connection, bool has_bus)
        : connection_(std::move(connection)), has_bus_(has_bus) {}

    base::Result<> subscribe();
    // Of a unit that we have started and that did not come to be: calls its job off, and has
    // systemd forget it.
    void abandon(const std::string& unit);
    // A unit that has not failed, or is none, is left as it is.
    base::Result<> forgetFailed(const std::string& unit, std::chrono::milliseconds patience);
    base::Result<std::string> waitJob(const std::string& job);
    base::Result<std::string> controlGroup(const std::string& unit);

    Connection connection_;
    bool has_bus_;  // false: systemd itself is at the other end
};

}  // namespace arca::runtime::systemd

// systemd's manager over D-Bus: starts, changes and stops the scope of a container.
//
// Used by commands with --systemd-cgroup, and by those on containers that were created so; nothing
// of it runs otherwise. One thread, blocking calls with deadlines. Source:
// org.freedesktop.systemd1(5).
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "base/result.h"
#include "runtime/systemd/scope.h"

struct DBusConnection;  // libdbus's

namespace arca::runtime::systemd {

class Manager {
 public:
    // The manager of the system; for another user than root, of that user's session. kUnavailable
    // when there is none.
    static base::Result<Manager> connect();

    // Starts the scope with `pid` in it and waits until systemd has moved it there. Gives the
    // cgroup's path, from the root of the hierarchy.
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
    Manager(Connection connection, bool has_bus)
        : connection_(std::move(connection)), has_bus_(has_bus) {}

    base::Result<> subscribe();
    // A unit that has not failed, or is none, is left as it is.
    base::Result<> forgetFailed(const std::string& unit);
    base::Result<std::string> waitJob(const std::string& job);
    base::Result<std::string> controlGroup(const std::string& unit);

    Connection connection_;
    bool has_bus_;  // false: systemd itself is at the other end
};

}  // namespace arca::runtime::systemd

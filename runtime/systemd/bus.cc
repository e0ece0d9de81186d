#include "runtime/systemd/bus.h"

#include <dbus/dbus.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <optional>

#include "base/strings.h"
#include "runtime/context.h"

namespace arca::runtime::systemd {
namespace {

using base::Code;
using base::fail;
using base::Result;
using Clock = std::chrono::steady_clock;

constexpr char kService[] = "org.freedesktop.systemd1";
constexpr char kManagerPath[] = "/org/freedesktop/systemd1";
constexpr char kManager[] = "org.freedesktop.systemd1.Manager";
constexpr char kNoSuchUnit[] = "org.freedesktop.systemd1.NoSuchUnit";
constexpr char kUnitExists[] = "org.freedesktop.systemd1.UnitExists";
constexpr std::chrono::milliseconds kPatience{30'000};     // runc's, for a job
constexpr std::chrono::milliseconds kLastPatience{2'000};  // with what has failed to answer already

struct MessageCloser {
    void operator()(DBusMessage* message) const noexcept { dbus_message_unref(message); }
};
using Message = std::unique_ptr<DBusMessage, MessageCloser>;

class ErrorHolder {
 public:
    ErrorHolder() { dbus_error_init(&error_); }
    ErrorHolder(const ErrorHolder&) = delete;
    ErrorHolder& operator=(const ErrorHolder&) = delete;
    ~ErrorHolder() { dbus_error_free(&error_); }
    [[nodiscard]] DBusError* get() { return &error_; }
    [[nodiscard]] bool is(const char* name) const {
        return dbus_error_has_name(&error_, name) != 0;
    }
    [[nodiscard]] std::string text() const {
        return base::printable(error_.message == nullptr ? "no reason given" : error_.message);
    }

 private:
    DBusError error_{};
};

Result<> noMemory() {
    return fail(Code::kInternal, "D-Bus: a message could not be built");
}

// Writes arguments into a message. libdbus fails only without memory: that is looked at once, in
// ok().
class Writer {
 public:
    explicit Writer(DBusMessage* message) { dbus_message_iter_init_append(message, &iter_); }

    void text(const std::string& value) { basic(DBUS_TYPE_STRING, value.c_str()); }

    // a(sv)
    void properties(const Properties& list) {
        inside(DBUS_TYPE_ARRAY, "(sv)", [&](Writer& array) {
            for (const Property& property : list) array.property(property);
        });
    }

    // a(sa(sv)) without entries
    void noOtherUnits() {
        inside(DBUS_TYPE_ARRAY, "(sa(sv))", [](Writer&) {});
    }

    [[nodiscard]] bool ok() const { return ok_; }

 private:
    Writer() = default;

    template <typename T>
    void basic(int type, const T& value) {
        ok_ = ok_ && dbus_message_iter_append_basic(&iter_, type, &value) != 0;
    }

    template <typename Body>
    void inside(int type, const char* signature, const Body& body) {
        Writer inner;
        if (dbus_message_iter_open_container(&iter_, type, signature, &inner.iter_) == 0) {
            ok_ = false;
            return;
        }
        body(inner);
        ok_ = dbus_message_iter_close_container(&iter_, &inner.iter_) != 0 && ok_ && inner.ok_;
    }

    void property(const Property& property) {
        inside(DBUS_TYPE_STRUCT, nullptr, [&](Writer& entry) {
            entry.text(property.name);
            std::visit([&](const auto& value) { entry.variant(value); }, property.value);
        });
    }

    void one(const char* signature, int type, const auto& value) {
        inside(DBUS_TYPE_VARIANT, signature, [&](Writer& inner) { inner.basic(type, value); });
    }
    void variant(bool value) { one("b", DBUS_TYPE_BOOLEAN, dbus_bool_t{value}); }
    void variant(uint8_t value) { one("y", DBUS_TYPE_BYTE, value); }
    void variant(int16_t value) { one("n", DBUS_TYPE_INT16, value); }
    void variant(uint16_t value) { one("q", DBUS_TYPE_UINT16, value); }
    void variant(int32_t value) { one("i", DBUS_TYPE_INT32, value); }
    void variant(uint32_t value) { one("u", DBUS_TYPE_UINT32, value); }
    void variant(int64_t value) { one("x", DBUS_TYPE_INT64, value); }
    void variant(uint64_t value) { one("t", DBUS_TYPE_UINT64, value); }
    void variant(double value) { one("d", DBUS_TYPE_DOUBLE, value); }
    void variant(const std::string& value) { one("s", DBUS_TYPE_STRING, value.c_str()); }

    void array(const char* signature, const char* element, const auto& list, const auto& put) {
        inside(DBUS_TYPE_VARIANT, signature, [&](Writer& variant) {
            variant.inside(DBUS_TYPE_ARRAY, element, [&](Writer& items) {
                for (const auto& item : list) put(items, item);
            });
        });
    }
    void variant(const std::vector<std::string>& list) {
        array("as", "s", list, [](Writer& items, const std::string& item) { items.text(item); });
    }
    void variant(const std::vector<uint8_t>& list) {
        array("ay", "y", list,
              [](Writer& items, uint8_t item) { items.basic(DBUS_TYPE_BYTE, item); });
    }
    void variant(const std::vector<uint32_t>& list) {
        array("au", "u", list,
              [](Writer& items, uint32_t item) { items.basic(DBUS_TYPE_UINT32, item); });
    }
    void variant(const std::vector<DeviceAllow>& list) {
        array("a(ss)", "(ss)", list, [](Writer& items, const DeviceAllow& device) {
            items.inside(DBUS_TYPE_STRUCT, nullptr, [&](Writer& entry) {
                entry.text(device.path);
                entry.text(device.access);
            });
        });
    }
    void variant(const std::vector<DeviceLimit>& list) {
        array("a(st)", "(st)", list, [](Writer& items, const DeviceLimit& device) {
            items.inside(DBUS_TYPE_STRUCT, nullptr, [&](Writer& entry) {
                entry.text(device.path);
                entry.basic(DBUS_TYPE_UINT64, device.value);
            });
        });
    }

    DBusMessageIter iter_{};
    bool ok_ = true;
};

Message managerCall(const char* method) {
    return Message(dbus_message_new_method_call(kService, kManagerPath, kManager, method));
}

// Sends a call and gives its answer; `error` has the reason of a failure, under its own name.
Message exchange(DBusConnection* connection, const Message& call, ErrorHolder& error,
                 std::chrono::milliseconds patience = kPatience) {
    return Message(dbus_connection_send_with_reply_and_block(
        connection, call.get(), static_cast<int>(patience.count()), error.get()));
}

// The first argument when it is a string or an object path.
std::string firstText(DBusMessage* message) {
    DBusMessageIter iter;
    if (dbus_message_iter_init(message, &iter) == 0) return {};
    const int type = dbus_message_iter_get_arg_type(&iter);
    if (type != DBUS_TYPE_STRING && type != DBUS_TYPE_OBJECT_PATH) return {};
    const char* text = nullptr;
    dbus_message_iter_get_basic(&iter, &text);
    return text;
}

// A unit's name as the last part of its object path. Source: sd_bus_path_encode(3).
std::string busLabel(const std::string& name) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (const char letter : name) {
        const bool digit = letter >= '0' && letter <= '9';
        const bool plain = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                           (digit && !out.empty());
        if (plain) {
            out += letter;
            continue;
        }
        const auto byte = static_cast<unsigned char>(letter);
        out += '_';
        out += kDigits[byte >> 4U];
        out += kDigits[byte & 15U];
    }
    return out;
}

base::Error busError(const std::string& what, const ErrorHolder& error) {
    const bool refused = error.is(DBUS_ERROR_ACCESS_DENIED);
    return {refused ? Code::kPermissionDenied : Code::kInternal,
            "systemd: " + what + ": " + error.text()};
}

// As libdbus has it, but for a bus that it would start itself.
std::string busAddress(bool root) {
    std::string address =
        environmentValue(root ? "DBUS_SYSTEM_BUS_ADDRESS" : "DBUS_SESSION_BUS_ADDRESS");
    if (!address.empty()) return address;
    return "unix:path=" +
           (root ? "/run/dbus/system_bus_socket" : environmentValue("XDG_RUNTIME_DIR") + "/bus");
}

// libdbus itself waits without end for the answers of the authentication.
bool authenticate(DBusConnection* connection) {
    const auto deadline = Clock::now() + kPatience;
    while (dbus_connection_get_is_authenticated(connection) == 0) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        if (left.count() <= 0) return false;
        if (dbus_connection_read_write(connection, static_cast<int>(left.count())) == 0) {
            return false;
        }
    }
    return true;
}

}  // namespace

void Manager::Closer::operator()(DBusConnection* connection) const noexcept {
    dbus_connection_close(connection);
    dbus_connection_unref(connection);
}

Manager::Connection Manager::open(const std::string& address, std::string& why) {
    ErrorHolder error;
    Connection connection(dbus_connection_open_private(address.c_str(), error.get()));
    if (!connection) {
        why = error.text();
        return nullptr;
    }
    dbus_connection_set_exit_on_disconnect(connection.get(), 0);
    if (authenticate(connection.get())) return connection;
    why = "no answer from " + base::printable(address);
    return nullptr;
}

Result<Manager> Manager::connect() {
    const bool root = ::geteuid() == 0;
    std::string why;
    Connection bus = open(busAddress(root), why);
    if (bus) {
        ErrorHolder error;
        if (dbus_bus_register(bus.get(), error.get()) != 0) return Manager(std::move(bus), true);
        why = error.text();
    }
    // Without a bus, as early in a boot, systemd listens itself, for its own user only.
    const std::string folder = root ? "/run" : environmentValue("XDG_RUNTIME_DIR");
    if (!folder.empty()) {
        std::string ignored;
        Connection direct = open("unix:path=" + folder + "/systemd/private", ignored);
        if (direct) return Manager(std::move(direct), false);
    }
    return fail(Code::kFailedPrecondition,
                "--systemd-cgroup: cannot reach systemd over D-Bus: " + why);
}

// JobRemoved is sent to subscribers only; without a bus to everybody, and Subscribe has no answer.
Result<> Manager::subscribe() {
    if (!has_bus_) return {};
    ErrorHolder error;
    dbus_bus_add_match(connection_.get(),
                       "type='signal',sender='org.freedesktop.systemd1',"
                       "interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
                       error.get());
    if (dbus_error_is_set(error.get()) != 0) return fail(busError("AddMatch", error));
    const Message call = managerCall("Subscribe");
    if (!call) return noMemory();
    if (exchange(connection_.get(), call, error)) return {};
    return fail(busError("Subscribe", error));
}

// The result of a job, such as "done".
Result<std::string> Manager::waitJob(const std::string& job) {
    const auto deadline = Clock::now() + kPatience;
    while (true) {
        while (const Message message{dbus_connection_pop_message(connection_.get())}) {
            if (dbus_message_is_signal(message.get(), kManager, "JobRemoved") == 0) continue;
            uint32_t number = 0;
            const char* path = nullptr;
            const char* unit = nullptr;
            const char* result = nullptr;
            ErrorHolder error;
            const bool read =
                dbus_message_get_args(message.get(), error.get(), DBUS_TYPE_UINT32, &number,
                                      DBUS_TYPE_OBJECT_PATH, &path, DBUS_TYPE_STRING, &unit,
                                      DBUS_TYPE_STRING, &result, DBUS_TYPE_INVALID) != 0;
            if (read && job == path) return std::string(result);
        }
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        if (left.count() <= 0) {
            return fail(Code::kDeadlineExceeded,
                        "systemd: job " + job + " did not end within 30 s");
        }
        if (dbus_connection_read_write(connection_.get(), static_cast<int>(left.count())) == 0) {
            return fail(Code::kFailedPrecondition, "systemd: the bus went away during job " + job);
        }
    }
}

// What they answer does not matter, and the job is not waited for: the process that the scope was
// for is killed next, and systemd removes a scope that is empty.
void Manager::abandon(const std::string& unit) {
    const Message call = managerCall("StopUnit");
    if (!call) return;
    Writer writer(call.get());
    writer.text(unit);
    writer.text("replace");
    if (!writer.ok()) return;
    ErrorHolder ignored;
    if (!exchange(connection_.get(), call, ignored, kLastPatience)) return;
    (void)forgetFailed(unit, kLastPatience);
}

Result<> Manager::forgetFailed(const std::string& unit, std::chrono::milliseconds patience) {
    const Message call = managerCall("ResetFailedUnit");
    if (!call) return noMemory();
    Writer writer(call.get());
    writer.text(unit);
    ErrorHolder ignored;
    (void)exchange(connection_.get(), call, ignored, patience);
    return {};
}

Result<std::string> Manager::startScope(const ScopeName& name, Properties properties, pid_t pid) {
    properties.push_back({"PIDs", std::vector<uint32_t>{static_cast<uint32_t>(pid)}});
    ARCA_CHECK(subscribe());
    // A unit of that name that failed and was never looked at is in the way: once forgotten, it is
    // not.
    constexpr int kTries = 2;
    for (int i = 1;; ++i) {
        const Message call = managerCall("StartTransientUnit");
        if (!call) return fail(noMemory().error());
        Writer writer(call.get());
        writer.text(name.unit);
        writer.text("replace");
        writer.properties(properties);
        writer.noOtherUnits();
        if (!writer.ok()) return fail(noMemory().error());
        ErrorHolder error;
        const Message answer = exchange(connection_.get(), call, error);
        if (answer) {
            auto result = waitJob(firstText(answer.get()));
            if (result && *result == "done") {
                auto group = controlGroup(name.unit);
                if (!group) abandon(name.unit);
                return group;
            }
            abandon(name.unit);
            const std::string what = "systemd: start of " + name.unit;
            if (!result) return fail(std::move(result).error().withContext(what));
            return fail(Code::kInternal,
                        what + ": the job's result is " + base::printable(*result));
        }
        if (!error.is(kUnitExists) || i == kTries) {
            return fail(busError("start of " + base::printable(name.unit), error));
        }
        ARCA_CHECK(forgetFailed(name.unit, kPatience));
    }
}

Result<std::string> Manager::controlGroup(const std::string& unit) {
    const std::string path = std::string(kManagerPath) + "/unit/" + busLabel(unit);
    const Message call(dbus_message_new_method_call(kService, path.c_str(),
                                                    "org.freedesktop.DBus.Properties", "Get"));
    if (!call) return fail(noMemory().error());
    Writer writer(call.get());
    writer.text("org.freedesktop.systemd1.Scope");
    writer.text("ControlGroup");
    if (!writer.ok()) return fail(noMemory().error());
    ErrorHolder error;
    const Message answer = exchange(connection_.get(), call, error);
    if (!answer) return fail(busError("ControlGroup of " + unit, error));
    DBusMessageIter iter;
    DBusMessageIter inner;
    const char* group = nullptr;
    if (dbus_message_iter_init(answer.get(), &iter) != 0 &&
        dbus_message_iter_get_arg_type(&iter) == DBUS_TYPE_VARIANT) {
        dbus_message_iter_recurse(&iter, &inner);
        if (dbus_message_iter_get_arg_type(&inner) == DBUS_TYPE_STRING) {
            dbus_message_iter_get_basic(&inner, &group);
        }
    }
    if (group == nullptr || group[0] != '/' || group[1] == '\0') {
        return fail(Code::kInternal, "systemd: " + unit + " has no cgroup");
    }
    return std::string(group);
}

Result<> Manager::setProperties(const std::string& unit, const Properties& properties) {
    const Message call = managerCall("SetUnitProperties");
    if (!call) return noMemory();
    const dbus_bool_t runtime = 1;
    const char* name = unit.c_str();
    if (dbus_message_append_args(call.get(), DBUS_TYPE_STRING, &name, DBUS_TYPE_BOOLEAN, &runtime,
                                 DBUS_TYPE_INVALID) == 0) {
        return noMemory();
    }
    Writer writer(call.get());
    writer.properties(properties);
    if (!writer.ok()) return noMemory();
    ErrorHolder error;
    if (exchange(connection_.get(), call, error)) return {};
    return fail(busError("SetUnitProperties of " + unit, error));
}

Result<> Manager::stop(const std::string& unit) {
    ARCA_CHECK(subscribe());
    const Message call = managerCall("StopUnit");
    if (!call) return noMemory();
    Writer writer(call.get());
    writer.text(unit);
    writer.text("replace");
    if (!writer.ok()) return noMemory();
    ErrorHolder error;
    const Message answer = exchange(connection_.get(), call, error);
    if (answer) {
        ARCA_TRY([[maybe_unused]] const std::string result, waitJob(firstText(answer.get())));
    } else if (!error.is(kNoSuchUnit)) {
        return fail(busError("stop of " + unit, error));
    }
    return forgetFailed(unit, kPatience);
}

}  // namespace arca::runtime::systemd

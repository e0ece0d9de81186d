#include "vsock/options.h"

#include <functional>
#include <limits>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "vsock/packet.h"

namespace arca::vsock {

using base::Code;
using base::fail;
using base::parseNumber;
using base::Result;

const char kUsage[] =
    "usage: arca-vsock (--vhost-user PATH | --vhost-user-fd N) --base PATH --cid N [OPTIONS]\n"
    "\n"
    "Gives a virtual machine a vsock device without vhost-vsock on the host: a vhost-user device\n"
    "for the VMM, Unix sockets for the host's programs.\n"
    "\n"
    "  --vhost-user PATH    listen here for the VMM\n"
    "  --vhost-user-fd N    the same with an inherited socket, listening or connected\n"
    "  --base PATH          the host's sockets: connect to PATH, send \"CONNECT <port>\\n\" and\n"
    "                       read \"OK <n>\\n\" to reach a port of the guest; a guest that "
    "connects\n"
    "                       to (2, port) is connected to PATH_<port>\n"
    "  --cid N              the guest's context id, 3 to 4294967294\n"
    "  --max-streams N      streams at once (default 1024, at most 65536)\n"
    "  --user UID:GID       the user to become when started as root (default: root without\n"
    "                       capabilities)\n"
    "  --keep               wait for the next VMM when one has gone, instead of exiting\n"
    "  --ready-fd N         write a line end to this descriptor and close it when both sockets\n"
    "                       listen\n"
    "  --log FILE           log there (default: standard error)\n"
    "  --log-format FORMAT  text or json\n"
    "  --debug              log refused connections, too\n";

namespace {

using Setter = std::function<Result<>(Options&, std::string_view)>;

Result<> wrong(std::string_view name, std::string_view value) {
    return fail(Code::kInvalidArgument,
                std::string(name) + ": invalid value \"" + base::printable(value) + "\"");
}

// A number between two bounds, stored in an integer or an optional of one.
template <typename T, typename Member>
Setter number(std::string_view name, Member Options::*member, T least, T most) {
    return [=](Options& options, std::string_view text) -> Result<> {
        const std::optional<T> value = parseNumber<T>(text);
        if (!value || *value < least || *value > most) return wrong(name, text);
        options.*member = *value;
        return {};
    };
}

Setter text(std::string_view name, std::string Options::*member) {
    return [=](Options& options, std::string_view value) -> Result<> {
        if (value.empty()) return wrong(name, value);
        options.*member = std::string(value);
        return {};
    };
}

Result<> setUser(Options& options, std::string_view value) {
    const std::vector<std::string_view> parts = base::split(value, ':');
    // -1 means "leave as it is" to the kernel.
    constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
    if (parts.size() == 2) {
        const auto user = parseNumber<uint32_t>(parts[0]);
        const auto group = parseNumber<uint32_t>(parts[1]);
        if (user && group && *user != kNone && *group != kNone) {
            options.user = UserId{*user, *group};
            return {};
        }
    }
    return wrong("--user", value);
}

Result<> setLogFormat(Options& options, std::string_view value) {
    if (value != "text" && value != "json") return wrong("--log-format", value);
    options.log_json = value == "json";
    return {};
}

struct Option {
    std::string_view name;
    Setter set;                     // with a value
    bool Options::*flag = nullptr;  // without
};

const std::vector<Option>& allOptions() {
    constexpr int kMaxFd = 1 << 20;
    static const std::vector<Option> options = {
        {"--vhost-user", text("--vhost-user", &Options::vhost_user_path)},
        {"--vhost-user-fd", number<int>("--vhost-user-fd", &Options::vhost_user_fd, 0, kMaxFd)},
        {"--base", text("--base", &Options::base)},
        {"--cid", number<uint64_t>("--cid", &Options::cid, kFirstGuestCid, 0xfffffffeU)},
        {"--max-streams", number<size_t>("--max-streams", &Options::max_streams, 1, kMostStreams)},
        {"--user", setUser},
        {"--ready-fd", number<int>("--ready-fd", &Options::ready_fd, 0, kMaxFd)},
        {"--log", text("--log", &Options::log)},
        {"--log-format", setLogFormat},
        {"--keep", {}, &Options::keep},
        {"--debug", {}, &Options::debug},
        {"--help", {}, &Options::help},
    };
    return options;
}

const Option* findOption(std::string_view name) {
    for (const Option& option : allOptions()) {
        if (option.name == name) return &option;
    }
    return nullptr;
}

Result<> checkTogether(const Options& options) {
    if (options.vhost_user_path.empty() == !options.vhost_user_fd.has_value()) {
        return fail(Code::kInvalidArgument, "one of --vhost-user and --vhost-user-fd is needed");
    }
    if (options.base.empty()) return fail(Code::kInvalidArgument, "--base is needed");
    if (options.cid == 0) return fail(Code::kInvalidArgument, "--cid is needed");
    return {};
}

}  // namespace

Result<Options> parseOptions(std::span<const char* const> arguments) {
    Options options;
    std::set<std::string_view> seen;
    for (size_t i = 0; i < arguments.size(); ++i) {
        const std::string_view argument = arguments[i];
        const size_t equals = argument.find('=');
        const std::string_view name = argument.substr(0, equals);
        const Option* const option = findOption(name);
        if (option == nullptr) {
            return fail(Code::kInvalidArgument, "unknown argument " + base::printable(argument));
        }
        if (!seen.insert(option->name).second) {
            return fail(Code::kInvalidArgument, std::string(name) + ": given twice");
        }
        if (option->flag != nullptr) {
            if (equals != std::string_view::npos) {
                return fail(Code::kInvalidArgument, std::string(name) + ": takes no value");
            }
            options.*option->flag = true;
            continue;
        }
        std::string_view value;
        if (equals != std::string_view::npos) {
            value = argument.substr(equals + 1);
        } else if (++i < arguments.size()) {
            value = arguments[i];
        } else {
            return fail(Code::kInvalidArgument, std::string(name) + ": needs a value");
        }
        ARCA_CHECK(option->set(options, value));
    }
    if (!options.help) ARCA_CHECK(checkTogether(options));
    return options;
}

}  // namespace arca::vsock

#include "hooks/tap_forwarder/options.h"

#include <cstddef>
#include <functional>
#include <map>
#include <utility>

#include "base/strings.h"

namespace arca::tap_forwarder {

using base::Code;
using base::fail;
using base::Result;

const char kHelp[] =
    "NAME:\n"
    "   arca-tap-forwarder - carry a network's frames between a guest and its host\n"
    "\n"
    "USAGE:\n"
    "   arca-tap-forwarder [flags] [-- PROGRAM [ARGUMENTS]]\n"
    "\n"
    "FLAGS:\n"
    "   --listen ADDRESS     vsock://2 (default: the host may connect) or unix://DIR\n"
    "   --ready-fd N         write a line end there and close it once it listens\n"
    "   --resolv-conf PATH   written for eth0 (default /etc/resolv.conf)\n"
    "   --dns-socket PATH    of the name server (default /tmp/arca-dns-control.sock)\n"
    "   --help, -h           print this text\n"
    "   --version, -v        print the version\n";

namespace {

Result<> setFd(Options& options, std::string_view value) {
    options.ready_fd = base::parseNumber<int>(value);
    if (options.ready_fd && *options.ready_fd >= 0) return {};
    return fail(Code::kInvalidArgument, "\"" + base::printable(value) + "\" is no descriptor");
}

Result<> setPath(std::string& target, std::string_view value) {
    if (value.substr(0, 1) != "/" || value.find('\0') != std::string_view::npos) {
        return fail(Code::kInvalidArgument, "an absolute path is needed");
    }
    target = value;
    return {};
}

Result<> setListen(Options& options, std::string_view value) {
    if (value.substr(0, 8) != "vsock://" && value.substr(0, 7) != "unix://") {
        return fail(Code::kInvalidArgument,
                    "\"" + base::printable(value) + "\" is neither vsock://CID nor unix://DIR");
    }
    options.listen = value;
    return {};
}

using Setter = std::function<Result<>(Options&, std::string_view)>;

const std::map<std::string_view, Setter>& setters() {
    static const std::map<std::string_view, Setter> all{
        {"--listen", setListen},
        {"--ready-fd", setFd},
        {"--resolv-conf", [](Options& o, std::string_view v) { return setPath(o.resolv_conf, v); }},
        {"--dns-socket", [](Options& o, std::string_view v) { return setPath(o.dns_socket, v); }},
    };
    return all;
}

// One flag with its value, which may be the next word; `at` is moved on to that.
Result<> takeFlag(Options& options, const std::vector<std::string_view>& args, size_t& at) {
    const std::string_view word = args[at];
    const size_t equals = word.find('=');
    const std::string name(word.substr(0, equals));
    const auto setter = setters().find(name);
    if (setter == setters().end()) {
        return fail(Code::kInvalidArgument, base::printable(name) + ": not known");
    }
    if (equals == std::string_view::npos && at + 1 == args.size()) {
        return fail(Code::kInvalidArgument, name + ": needs a value");
    }
    const std::string_view value =
        equals == std::string_view::npos ? args[++at] : word.substr(equals + 1);
    auto set = setter->second(options, value);
    if (!set) return fail(std::move(set).error().withContext(name));
    return {};
}

}  // namespace

Result<Options> parseOptions(const std::vector<std::string_view>& args,
                             const char* ready_variable) {
    Options out;
    for (size_t i = 0; i < args.size(); ++i) {
        const std::string_view word = args[i];
        if (word == "--") {
            out.program.assign(args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end());
            if (out.program.empty()) return fail(Code::kInvalidArgument, "--: no program");
            out.ready_fd.reset();
            return out;
        }
        if (word == "--help" || word == "-h") {
            out.help = true;
        } else if (word == "--version" || word == "-v") {
            out.version = true;
        } else {
            ARCA_CHECK(takeFlag(out, args, i));
        }
    }
    if (!out.ready_fd && ready_variable != nullptr) {
        auto set = setFd(out, ready_variable);
        if (!set) return fail(std::move(set).error().withContext(kReadyVariable));
    }
    return out;
}

}  // namespace arca::tap_forwarder

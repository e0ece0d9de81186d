#include "base/signals.h"

#include <array>
#include <csignal>
#include <optional>

#include "base/error_texts.h"
#include "base/strings.h"

namespace arca::base {
namespace {

constexpr int kRtMin = 34;  // glibc keeps 32 and 33 for itself
constexpr int kRtMax = 64;

struct Name {
    std::string_view name;
    int number;
};

constexpr std::array kNames = {
    Name{"HUP", SIGHUP},       Name{"INT", SIGINT},       Name{"QUIT", SIGQUIT},
    Name{"ILL", SIGILL},       Name{"TRAP", SIGTRAP},     Name{"ABRT", SIGABRT},
    Name{"BUS", SIGBUS},       Name{"FPE", SIGFPE},       Name{"KILL", SIGKILL},
    Name{"USR1", SIGUSR1},     Name{"SEGV", SIGSEGV},     Name{"USR2", SIGUSR2},
    Name{"PIPE", SIGPIPE},     Name{"ALRM", SIGALRM},     Name{"TERM", SIGTERM},
    Name{"STKFLT", SIGSTKFLT}, Name{"CHLD", SIGCHLD},     Name{"CONT", SIGCONT},
    Name{"STOP", SIGSTOP},     Name{"TSTP", SIGTSTP},     Name{"TTIN", SIGTTIN},
    Name{"TTOU", SIGTTOU},     Name{"URG", SIGURG},       Name{"XCPU", SIGXCPU},
    Name{"XFSZ", SIGXFSZ},     Name{"VTALRM", SIGVTALRM}, Name{"PROF", SIGPROF},
    Name{"WINCH", SIGWINCH},   Name{"IO", SIGIO},         Name{"PWR", SIGPWR},
    Name{"SYS", SIGSYS},       Name{"IOT", SIGABRT},      Name{"POLL", SIGIO},
    Name{"CLD", SIGCHLD},
};

std::optional<int> realTime(std::string_view name) {
    if (name.size() < 5) return std::nullopt;
    const std::string_view base_name = name.substr(0, 5);
    const std::string_view rest = name.substr(5);
    const bool from_min = base_name == "RTMIN";
    if (!from_min && base_name != "RTMAX") return std::nullopt;
    if (rest.empty()) return from_min ? kRtMin : kRtMax;
    if (rest.front() != (from_min ? '+' : '-')) return std::nullopt;
    const auto offset = parseNumber<unsigned>(rest.substr(1));
    if (!offset || *offset > static_cast<unsigned>(kRtMax - kRtMin)) return std::nullopt;
    return from_min ? kRtMin + static_cast<int>(*offset) : kRtMax - static_cast<int>(*offset);
}

}  // namespace

Result<int> parseSignal(std::string_view text) {
    const auto unknown = [&] {
        return fail(Code::kInvalidArgument,
                    std::string(texts::kUnknownSignal) + " \"" + printable(text) + "\"");
    };
    if (const auto number = parseNumber<unsigned>(text)) {
        if (*number > static_cast<unsigned>(kRtMax)) return unknown();
        return static_cast<int>(*number);
    }
    std::string name = toUpper(text);
    if (name.rfind("SIG", 0) == 0) name.erase(0, 3);
    for (const Name& known : kNames) {
        if (known.name == name) return known.number;
    }
    if (const auto number = realTime(name)) return *number;
    return unknown();
}

std::string signalName(int signal_number) {
    for (const Name& known : kNames) {
        if (known.number == signal_number) return "SIG" + std::string(known.name);
    }
    if (signal_number >= kRtMin && signal_number <= kRtMax) {
        return "SIGRTMIN+" + std::to_string(signal_number - kRtMin);
    }
    return std::to_string(signal_number);
}

}  // namespace arca::base

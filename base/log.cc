#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <ctime>

#include "base/files.h"
#include "base/strings.h"
#include "base/unique_fd.h"

namespace arca::base::log {
namespace {

struct State {
    UniqueFd file;
    Format format = Format::kText;
    Level level = Level::kInfo;
    std::string label;
};

State& state() {
    static State instance;
    return instance;
}

std::string_view levelName(Level level) {
    switch (level) {
        case Level::kDebug:
            return "debug";
        case Level::kInfo:
            return "info";
        case Level::kWarning:
            return "warning";
        case Level::kError:
            return "error";
    }
    return "error";
}

std::string quoted(std::string_view text) {
    std::string out = "\"";
    while (!text.empty()) {
        const size_t length = utf8SequenceLength(text);
        const char c = text.front();
        const auto byte = static_cast<unsigned char>(c);
        if (length == 0) {
            out += "\\ufffd";
        } else if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '\t') {
            out += "\\t";
        } else if (byte < 0x20 || byte == 0x7f) {
            char escape[8];
            (void)std::snprintf(escape, sizeof escape, "\\u%04x", byte);
            out += escape;
        } else {
            out += text.substr(0, length);
        }
        text.remove_prefix(length == 0 ? 1 : length);
    }
    return out + "\"";
}

std::string now(Format format) {
    timespec time{};
    (void)::clock_gettime(CLOCK_REALTIME, &time);
    std::tm broken_down{};
    (void)::gmtime_r(&time.tv_sec, &broken_down);
    char text[32];
    (void)std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &broken_down);
    if (format != Format::kConsole) return std::string(text) + "Z";
    char fraction[16];
    (void)std::snprintf(fraction, sizeof fraction, ".%03dZ",
                        static_cast<int>(time.tv_nsec / 1'000'000));
    return std::string(text) + fraction;
}

// One line; what a stuck console does not take within `kConsoleWaitMs` is lost. Once it was stuck
// nobody waits for it again until it has taken something.
void writeToConsole(std::string_view line) {
    constexpr int kConsoleWaitMs = 100;
    static std::atomic<bool> stuck{false};
    while (!line.empty()) {
        const ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
        if (n >= 0) {
            stuck = false;
            line.remove_prefix(static_cast<size_t>(n));
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN || stuck) return;
        pollfd entry{STDERR_FILENO, POLLOUT, 0};
        if (::poll(&entry, 1, kConsoleWaitMs) <= 0) stuck = true;
    }
}

void put(const State& current, const std::string& line) {
    if (current.format == Format::kConsole && !current.file.valid()) return writeToConsole(line);
    // Nobody is left to tell when the log itself cannot be written.
    (void)writeAll(current.file.valid() ? current.file.get() : STDERR_FILENO, line);
}

}  // namespace

Result<> setUp(const Options& options) {
    State& current = state();
    current.format = options.format;
    current.level = options.level;
    current.label = options.label;
    if (options.path.empty()) return {};
    ARCA_TRY(current.file,
             openAt(AT_FDCWD, options.path, O_WRONLY | O_CREAT | O_APPEND | O_SYNC, 0644));
    return {};
}

bool hasFile() {
    return state().file.valid();
}

bool writesDebug() {
    return state().level == Level::kDebug;
}

std::string formatLine(Format format, Level level, std::string_view message, std::string_view time,
                       std::string_view label) {
    const std::string name(levelName(level));
    const std::string stamp(time);
    if (format == Format::kJson) {
        return R"({"level":")" + name + R"(","msg":)" + quoted(message) + R"(,"time":")" + stamp +
               "\"}";
    }
    if (format == Format::kConsole) {
        return stamp + " " + name + " " + std::string(label) + ": " + printable(message);
    }
    return "time=\"" + stamp + "\" level=" + name + " msg=" + quoted(message);
}

void write(Level level, std::string_view message) {
    const State& current = state();
    if (level < current.level) return;
    put(current,
        formatLine(current.format, level, message, now(current.format), current.label) + "\n");
}

void relay(std::string_view program, std::string_view line) {
    const State& current = state();
    const bool console = current.format == Format::kConsole;
    const std::string text =
        console ? std::string(line) : std::string(program).append(": ").append(line);
    put(current,
        formatLine(current.format, Level::kInfo, text, now(current.format), program) + "\n");
}

}  // namespace arca::base::log

// The caller's terminal and the relay between it and a container's: for run and exec with a
// terminal in the foreground.
#pragma once

#include <poll.h>
#include <termios.h>

#include <array>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

// The terminal that this program was started from, in raw mode while this lives.
class HostTerminal {
 public:
    // Takes the first of stdin, stdout, stderr that is a terminal, else /dev/tty. Without any there
    // is nothing to set and the size is unknown; that is no error.
    static base::Result<HostTerminal> open();

    HostTerminal(HostTerminal&& other) noexcept;
    HostTerminal& operator=(HostTerminal&&) = delete;
    ~HostTerminal();  // restores the mode

    // Everything that is typed goes to the container's terminal unchanged, which echoes, edits and
    // turns ^C into a signal; everything it prints comes out unchanged.
    base::Result<> setRaw();

    // Gives `terminal_fd`, the container's, the size of this one.
    base::Result<> copySizeTo(int terminal_fd) const;

 private:
    HostTerminal() = default;
    base::UniqueFd fd_;  // invalid: there is none
    std::optional<termios> saved_;
};

// Moves bytes between our stdin and stdout and a terminal's master. Each direction has a bounded
// buffer and its own flow control. Never blocks: the caller polls.
class Relay {
 public:
    // `master` is borrowed; it becomes non-blocking. Our own stdio may be shared with others and
    // stays as it is.
    static base::Result<Relay> make(int input, int output, int master);

    // Appends what to wait for. Call process() with the same entries after poll(2).
    void addTo(std::vector<pollfd>& entries);
    base::Result<> process(const std::vector<pollfd>& entries);

    // After the end of the process: moves what its terminal still holds, until the terminal is
    // closed or stays silent.
    base::Result<> drain();

 private:
    struct Direction {
        int from = -1;  // -1: it has ended
        int to = -1;    // -1: nobody takes it; bytes are dropped
        std::array<char, 4096> buffer{};
        size_t begin = 0;
        size_t end = 0;
        [[nodiscard]] bool empty() const { return begin == end; }
    };
    Relay(int input, int output, int master);
    base::Result<> readInto(Direction& direction) const;
    base::Result<> writeFrom(Direction& direction) const;

    Direction up_;    // to the container
    Direction down_;  // from it
};

}  // namespace arca::runtime

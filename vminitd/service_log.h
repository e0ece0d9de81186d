// What a hook service writes: to the agent's log line by line, and the last lines kept.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

namespace arca::vminitd {

class ServiceLog {
 public:
    static constexpr size_t kLongestLine = 1024;  // longer ones are written as several
    static constexpr size_t kKeptLines = 20;
    static constexpr size_t kKeptBytes = 640;  // of tail(): callers cut messages at 1024
    static constexpr unsigned kLinesPerSecond = 200;

    // `program`: what its lines are marked with.
    explicit ServiceLog(std::string program) : program_(std::move(program)) {}

    // Takes what came out of its pipe. Lines beyond kLinesPerSecond are kept but not written, so
    // that one that does nothing but write cannot hold up the agent; how many they were is.
    void add(std::string_view bytes);
    // Nothing more will come: a last line without its end counts too.
    void finish();

    // The last lines, "a | b | c", printable; "" when it has written nothing.
    [[nodiscard]] std::string tail() const;

 private:
    void line(std::string_view text);
    void write(std::string_view text);

    std::string program_;
    std::string partial_;
    std::deque<std::string> kept_;
    std::chrono::steady_clock::time_point second_{};  // when the present one began
    unsigned written_ = 0;                            // in it
    unsigned left_out_ = 0;                           // since the last line that was written
};

}  // namespace arca::vminitd

// One direction of a byte stream: copies from one descriptor to another on an EventLoop.
//
// Each pump has its own buffer and its own back-pressure: it reads only what it has written, so a
// reader that stops stalls this stream and no other. Used for stdio between pipes, terminals and
// vsock streams on both sides of a sandbox, and for the vsock proxies. Loop thread only.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

// Gives a description of the same pipe or terminal that does not block, without making the
// caller's own description non-blocking (which other processes share). Sockets, regular files and
// what cannot be opened again are given back as they are: a Pump handles them.
UniqueFd unshared(UniqueFd fd, int access_mode /* O_RDONLY or O_WRONLY */);

class Pump : public std::enable_shared_from_this<Pump> {
 public:
    enum class Hangup {
        kEnds,    // the end of the stream
        kPauses,  // of a terminal's master: nobody has the other side open just now; finish() ends
    };
    // Called once, on the loop, when both descriptors have been closed. `lost`: bytes that were
    // read and could not be written, because the reader went away.
    using Done = std::function<void(size_t lost)>;

    // Takes both descriptors, and lives by itself until its end. At the end of `in` the rest is
    // written, then `out` is shut down for writing (a socket) and closed; when `out` breaks, `in`
    // is closed, so that whoever writes there learns of it. `done` may be empty.
    static std::shared_ptr<Pump> start(EventLoop& loop, UniqueFd in, UniqueFd out, Done done,
                                       Hangup hangup = Hangup::kEnds);
    ~Pump();

    // The source has no more to say than what is in it now: copies that and ends. At most
    // kDrainBytes, for a source that somebody keeps filling.
    static constexpr size_t kDrainBytes = size_t{2} << 20U;
    void finish();
    // Ends at once, with what is in the buffer lost; `done` is not called.
    void abandon();
    // Stops and resumes reading; what has been read is still written.
    void hold(bool held);
    // One side is a pipe of ours alone. While much passes, it and the buffer hold kBulkBytes
    // instead of 64 KiB: each switch between the program and us then moves more. At most kBulkPumps
    // of a process have that at a time, which bounds what streams whose readers stop keep in
    // memory.
    void mayGrow() { may_grow_ = true; }
    static constexpr size_t kBulkBytes = size_t{1} << 20U;
    static constexpr int kBulkPumps = 2;

    [[nodiscard]] bool ended() const { return !in_.valid() && !out_.valid(); }

 private:
    Pump(EventLoop& loop, UniqueFd in, UniqueFd out, Done done, Hangup hangup);
    // Moves bytes until one side has to be waited for.
    void step();
    ssize_t readSome();
    // True when something was read into the empty buffer, or the end was.
    bool fill();
    // True when the buffer is empty now.
    bool drain();
    void sourceEnded();
    void end();
    [[nodiscard]] size_t capacity() const;  // of memory_
    // Both want an empty buffer. What shrinkIfIdle() leaves as it is, it looks at again.
    void growIfFast();
    void shrink();
    void shrinkIfIdle();
    void resizePipes(size_t bytes) const;
    enum class Wait { kIn, kOut, kNothing };
    void wait(Wait what);
    // False when a call on this descriptor could block now.
    [[nodiscard]] static bool ready(int fd, short events);
    [[nodiscard]] bool empty() const { return buffer_at_ == buffer_end_; }

    EventLoop& loop_;
    UniqueFd in_;
    UniqueFd out_;
    Done done_;
    Hangup hangup_;
    bool in_socket_ = false;
    bool out_socket_ = false;
    bool in_blocks_ = false;   // not O_NONBLOCK: asked before each read
    bool out_blocks_ = false;  // the same, and more than one page could block all the same
    bool in_polls_ = true;     // false: always ready (a regular file)
    bool out_polls_ = true;
    bool finishing_ = false;
    bool source_ended_ = false;
    bool held_ = false;
    bool may_grow_ = false;
    bool grown_ = false;
    size_t drained_ = 0;
    size_t moved_ = 0;  // since counted_from_, or the last look for idleness
    EventLoop::Clock::time_point counted_from_;
    std::unique_ptr<char[]> memory_;  // none while idle
    size_t buffer_at_ = 0;            // what is still to be written: from here
    size_t buffer_end_ = 0;           // to here
    std::shared_ptr<Pump> self_;      // until it has ended
    Watch in_watch_;
    Watch out_watch_;
    Timer again_;
    Timer idle_check_;
};

}  // namespace arca::base

// Ethernet frames on a byte stream: each has its length before it, 4 bytes, big-endian.
//
// The data plane between a guest's TAP device and the host (proto/tap_forwarder.proto), used on
// both sides. FrameBatch is filled from a device frame by frame and written to the stream in big
// pieces, FrameReader takes big pieces from the stream and gives frames. Neither copies a frame,
// neither does input or output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"

namespace arca::base {

inline constexpr size_t kFrameLengthBytes = 4;
// Longest frame in bytes, what stands before it not counted.
inline constexpr size_t kMaxFrame = 65536;
// The same for frames that begin with a virtio_net_hdr, with that.
inline constexpr size_t kMaxVnetFrame = kMaxFrame + 64;
// What a batch or a reader holds unless told otherwise.
inline constexpr size_t kFrameBufferBytes = size_t{256} << 10U;

// Adds `frame` (1 byte or more) with its length before it to `stream`.
void appendFrame(std::vector<uint8_t>& stream, std::span<const uint8_t> frame);

// Frames on their way to the stream.
class FrameBatch {
 public:
    // `max_frame`: longest frame that is ever put in. `capacity` is made large enough for one.
    explicit FrameBatch(size_t max_frame, size_t capacity = kFrameBufferBytes);

    // Where the next frame belongs: `max_frame` bytes, or none when the batch is full. Valid until
    // the next call of commit() or wrote().
    [[nodiscard]] std::span<uint8_t> room();
    // The first `length` bytes of room() (1 or more) are a frame now.
    void commit(size_t length);

    // What is to be written to the stream.
    [[nodiscard]] std::span<const uint8_t> pending() const {
        return {memory_.get() + begin_, end_ - begin_};
    }
    // The first `count` bytes of pending() have been written.
    void wrote(size_t count);
    // Forgets what is pending: of a stream that has ended.
    void clear() { begin_ = end_ = 0; }
    [[nodiscard]] bool empty() const { return begin_ == end_; }

 private:
    size_t max_frame_;
    size_t capacity_;
    std::unique_ptr<uint8_t[]> memory_;  // not touched before it is used
    size_t begin_ = 0;
    size_t end_ = 0;
};

// Frames that came out of the stream.
class FrameReader {
 public:
    explicit FrameReader(size_t max_frame, size_t capacity = kFrameBufferBytes);

    // Where the stream's next bytes belong: never empty as long as next() was called until it had
    // no frame. Ends what spans next() has given.
    [[nodiscard]] std::span<uint8_t> space();
    // The stream's next `count` bytes are in space() now.
    void added(size_t count) { end_ += count; }

    // The next frame; empty when it has not come whole yet. Valid until space() is called. Fails
    // with kInvalidArgument on a length of 0 or beyond `max_frame`: nothing after it can be
    // understood, and each further call fails too.
    [[nodiscard]] Result<std::span<const uint8_t>> next();

    // Forgets what is in the buffer, a bad length too: for a new stream.
    void clear() { begin_ = end_ = 0; }
    // True when nothing is left of a frame: the stream may end here.
    [[nodiscard]] bool empty() const { return begin_ == end_; }

 private:
    size_t max_frame_;
    size_t capacity_;
    std::unique_ptr<uint8_t[]> memory_;
    size_t begin_ = 0;
    size_t end_ = 0;
};

}  // namespace arca::base

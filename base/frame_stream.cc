#include "base/frame_stream.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace arca::base {

namespace {

void putLength(uint8_t* at, size_t length) {
    at[0] = static_cast<uint8_t>(length >> 24U);
    at[1] = static_cast<uint8_t>(length >> 16U);
    at[2] = static_cast<uint8_t>(length >> 8U);
    at[3] = static_cast<uint8_t>(length);
}

size_t getLength(const uint8_t* at) {
    return static_cast<size_t>(at[0]) << 24U | static_cast<size_t>(at[1]) << 16U |
           static_cast<size_t>(at[2]) << 8U | static_cast<size_t>(at[3]);
}

}  // namespace

void appendFrame(std::vector<uint8_t>& stream, std::span<const uint8_t> frame) {
    const size_t at = stream.size();
    stream.resize(at + kFrameLengthBytes + frame.size());
    putLength(stream.data() + at, frame.size());
    std::copy(frame.begin(), frame.end(), stream.data() + at + kFrameLengthBytes);
}

FrameBatch::FrameBatch(size_t max_frame, size_t capacity)
    : max_frame_(max_frame),
      capacity_(std::max(capacity, kFrameLengthBytes + max_frame)),
      memory_(std::make_unique_for_overwrite<uint8_t[]>(capacity_)) {}

std::span<uint8_t> FrameBatch::room() {
    if (capacity_ - end_ < kFrameLengthBytes + max_frame_) return {};
    return {memory_.get() + end_ + kFrameLengthBytes, max_frame_};
}

void FrameBatch::commit(size_t length) {
    putLength(memory_.get() + end_, length);
    end_ += kFrameLengthBytes + length;
}

void FrameBatch::wrote(size_t count) {
    begin_ += count;
    if (begin_ == end_) clear();
}

FrameReader::FrameReader(size_t max_frame, size_t capacity)
    : max_frame_(max_frame),
      capacity_(std::max(capacity, kFrameLengthBytes + max_frame)),
      memory_(std::make_unique_for_overwrite<uint8_t[]>(capacity_)) {}

std::span<uint8_t> FrameReader::space() {
    // What is left is less than a frame, so that moving it costs little next to reading the rest.
    if (begin_ > 0) {
        std::memmove(memory_.get(), memory_.get() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    return {memory_.get() + end_, capacity_ - end_};
}

Result<std::span<const uint8_t>> FrameReader::next() {
    constexpr std::span<const uint8_t> kNone;
    if (end_ - begin_ < kFrameLengthBytes) return kNone;
    const size_t length = getLength(memory_.get() + begin_);
    if (length == 0 || length > max_frame_) {
        return fail(Code::kInvalidArgument, "frame of " + std::to_string(length) +
                                                " bytes: not 1 to " + std::to_string(max_frame_));
    }
    if (end_ - begin_ - kFrameLengthBytes < length) return kNone;
    const std::span<const uint8_t> frame(memory_.get() + begin_ + kFrameLengthBytes, length);
    begin_ += kFrameLengthBytes + length;
    return frame;
}

}  // namespace arca::base

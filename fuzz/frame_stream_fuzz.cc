// A stream of frames from a hostile peer, in pieces of any size.
//
// Input: the first byte chooses the limit and the buffer, the second how large the pieces are.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/frame_stream.h"

namespace {

void check(bool claim) {
    if (!claim) std::abort();
}

struct Parsed {
    std::vector<uint8_t> again;  // the frames, put into a stream again
    bool broken = false;
};

Parsed parse(std::span<const uint8_t> stream, size_t limit, size_t capacity, size_t piece) {
    Parsed out;
    arca::base::FrameReader reader(limit, capacity);
    while (!stream.empty() && !out.broken) {
        const std::span<uint8_t> space = reader.space();
        check(!space.empty());
        const size_t count = std::min({space.size(), stream.size(), piece});
        std::copy_n(stream.begin(), count, space.begin());
        reader.added(count);
        stream = stream.subspan(count);
        for (;;) {
            const auto frame = reader.next();
            out.broken = !frame;
            if (!frame || frame->empty()) break;
            check(frame->size() <= limit);
            arca::base::appendFrame(out.again, *frame);
        }
    }
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    const std::span<const uint8_t> stream(data + 2, size - 2);
    const size_t limit = 1 + data[0] % 128U;
    const Parsed small = parse(stream, limit, data[0] / 128U * 300U, 1 + data[1]);
    const Parsed whole = parse(stream, limit, size, size);
    check(small.again == whole.again && small.broken == whole.broken);
    check(whole.again.size() <= stream.size());
    check(std::equal(whole.again.begin(), whole.again.end(), stream.begin()));
    return 0;
}

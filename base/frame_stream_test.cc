#include "base/frame_stream.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <numeric>
#include <string>
#include <vector>

namespace arca::base {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes numbered(size_t size, uint8_t first = 1) {
    Bytes out(size);
    std::iota(out.begin(), out.end(), first);
    return out;
}

void add(FrameReader& reader, std::span<const uint8_t> bytes) {
    while (!bytes.empty()) {
        const std::span<uint8_t> space = reader.space();
        BOOST_TEST_REQUIRE(!space.empty());
        const size_t count = std::min(space.size(), bytes.size());
        std::copy_n(bytes.begin(), count, space.begin());
        reader.added(count);
        bytes = bytes.subspan(count);
    }
}

// Takes all whole frames.
std::vector<Bytes> frames(FrameReader& reader) {
    std::vector<Bytes> out;
    for (;;) {
        const auto frame = reader.next();
        BOOST_TEST_REQUIRE(frame.has_value());
        if (frame->empty()) return out;
        out.emplace_back(frame->begin(), frame->end());
    }
}

void put(FrameBatch& batch, const Bytes& frame) {
    const std::span<uint8_t> room = batch.room();
    BOOST_TEST_REQUIRE(room.size() >= frame.size());
    std::copy(frame.begin(), frame.end(), room.begin());
    batch.commit(frame.size());
}

Bytes pending(const FrameBatch& batch) {
    return {batch.pending().begin(), batch.pending().end()};
}

BOOST_AUTO_TEST_SUITE(frame_stream)

BOOST_AUTO_TEST_CASE(the_length_stands_before_the_frame_big_endian) {
    Bytes stream;
    appendFrame(stream, numbered(3));
    BOOST_TEST(stream == (Bytes{0, 0, 0, 3, 1, 2, 3}), boost::test_tools::per_element());
    stream.clear();
    appendFrame(stream, numbered(0x010203));
    BOOST_TEST((stream[0] == 0 && stream[1] == 1 && stream[2] == 2 && stream[3] == 3));

    FrameBatch batch(kMaxFrame);
    put(batch, numbered(3));
    put(batch, numbered(2, 7));
    BOOST_TEST(pending(batch) == (Bytes{0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 2, 7, 8}),
               boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_stream_cut_anywhere_gives_the_same_frames) {
    const std::vector<Bytes> sent = {numbered(1), numbered(60), numbered(4), numbered(17)};
    Bytes stream;
    for (const Bytes& frame : sent) appendFrame(stream, frame);
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        FrameReader reader(64, 0);  // the smallest buffer: one frame
        std::vector<Bytes> got;
        for (const auto& piece : {std::span(stream).first(cut), std::span(stream).subspan(cut)}) {
            for (const uint8_t& byte : piece) {
                add(reader, std::span(&byte, 1));
                for (Bytes& frame : frames(reader)) got.push_back(std::move(frame));
            }
        }
        BOOST_TEST((got == sent), "cut at " + std::to_string(cut));
        BOOST_TEST(reader.empty());
    }
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        FrameReader reader(kMaxFrame);
        add(reader, std::span(stream).first(cut));
        std::vector<Bytes> got = frames(reader);
        add(reader, std::span(stream).subspan(cut));
        for (Bytes& frame : frames(reader)) got.push_back(std::move(frame));
        BOOST_TEST((got == sent), "cut at " + std::to_string(cut));
    }
}

BOOST_AUTO_TEST_CASE(the_longest_frame_passes_and_one_more_byte_is_refused) {
    for (const size_t limit : {kMaxFrame, kMaxVnetFrame}) {
        FrameReader reader(limit, 0);
        Bytes stream;
        appendFrame(stream, numbered(limit));
        add(reader, stream);
        BOOST_TEST((frames(reader) == std::vector<Bytes>{numbered(limit)}));

        stream.clear();
        appendFrame(stream, numbered(limit + 1));
        add(reader, std::span(stream).first(kFrameLengthBytes));
        for (int i = 0; i < 2; ++i) {
            const auto bad = reader.next();
            BOOST_TEST_REQUIRE(!bad.has_value());
            BOOST_TEST((bad.error().code() == Code::kInvalidArgument));
            BOOST_TEST(bad.error().message() == "frame of " + std::to_string(limit + 1) +
                                                    " bytes: not 1 to " + std::to_string(limit));
        }
        reader.clear();
        BOOST_TEST(reader.empty());
        BOOST_TEST(reader.next().value().empty());
    }
}

BOOST_AUTO_TEST_CASE(lengths_of_nothing_and_of_everything_are_refused) {
    for (const Bytes& length :
         {Bytes{0, 0, 0, 0}, Bytes{255, 255, 255, 255}, Bytes{128, 0, 0, 1}}) {
        FrameReader reader(kMaxFrame);
        Bytes stream;
        appendFrame(stream, numbered(5));
        stream.insert(stream.end(), length.begin(), length.end());
        add(reader, stream);
        BOOST_TEST(reader.next().value().size() == 5U);
        BOOST_TEST(!reader.next().has_value());
        BOOST_TEST(!reader.empty());
    }
}

BOOST_AUTO_TEST_CASE(a_full_batch_has_no_room_until_all_is_written) {
    FrameBatch batch(100, 2 * 104 + 1);
    put(batch, numbered(100));
    put(batch, numbered(1));  // as if a frame were always of the longest kind
    BOOST_TEST(batch.room().empty());
    const size_t all = batch.pending().size();
    BOOST_TEST(all == 104U + 5U);
    batch.wrote(all - 1);
    BOOST_TEST(batch.pending().size() == 1U);
    BOOST_TEST(batch.pending()[0] == 1);
    BOOST_TEST(batch.room().empty());
    batch.wrote(1);
    BOOST_TEST(batch.empty());
    BOOST_TEST(batch.room().size() == 100U);
}

BOOST_AUTO_TEST_CASE(a_capacity_below_one_frame_is_made_one_frame) {
    FrameBatch batch(kMaxVnetFrame, 1);
    put(batch, numbered(kMaxVnetFrame));
    BOOST_TEST(batch.room().empty());
    FrameReader reader(kMaxVnetFrame, 1);
    add(reader, batch.pending());
    BOOST_TEST((frames(reader) == std::vector<Bytes>{numbered(kMaxVnetFrame)}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base

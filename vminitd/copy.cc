#include "vminitd/copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "vminitd/agent_files.h"

namespace arca::vminitd {

using base::Code;
using base::DataChannel;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t kChunkBytes = size_t{256} << 10U;
constexpr mode_t kModeBits = 0777;

Result<> fileIn(const CopyInRequest& request, DataChannel& channel) {
    const mode_t mode = request.mode == 0 ? 0644 : static_cast<mode_t>(request.mode) & kModeBits;
    ARCA_TRY(const UniqueFd fd,
             openForWriting(request.path, Existing::kTruncate, Missing::kCreate, mode));
    std::vector<char> buffer(kChunkBytes);
    while (true) {
        ARCA_TRY(const size_t n, channel.read(buffer.data(), buffer.size()));
        if (n == 0) return {};
        auto written = base::writeAll(fd.get(), {buffer.data(), n});
        if (!written) return fail(std::move(written).error().withContext(request.path.text()));
    }
}

// The host has said all that it wanted before it closes; what is left unread would make its last
// writes fail.
void drain(DataChannel& channel) {
    constexpr int kChunks = 16;
    std::vector<char> buffer(kChunkBytes);
    for (int i = 0; i < kChunks; ++i) {
        const auto n = channel.read(buffer.data(), buffer.size());
        if (!n || *n == 0) return;
    }
}

Result<> archiveIn(const CopyInRequest& request, DataChannel& channel,
                   const archive::Limits& limits) {
    const bool is_new = !statFile(request.path).has_value();
    ARCA_TRY(const UniqueFd made, request.path.makeDirs(0755));
    ARCA_TRY(const UniqueFd folder, base::openAt(made.get(), ".", O_RDONLY | O_DIRECTORY));
    const auto source = [&channel](char* to, size_t size) { return channel.read(to, size); };
    const auto fidelity = request.exact ? archive::Fidelity::kExact : archive::Fidelity::kProtocol;
    auto unpacked = archive::unpackTree(folder.get(), source, is_new, fidelity, limits);
    if (!unpacked) return fail(std::move(unpacked).error().withContext(request.path.text()));
    if (unpacked->skipped > 0) {
        base::log::warning("copy to " + request.path.text() + ": " +
                           std::to_string(unpacked->skipped) + " entries were left out");
    }
    if (unpacked->lost_attributes > 0) {
        base::log::warning("copy to " + request.path.text() + ": " +
                           std::to_string(unpacked->lost_attributes) +
                           " extended attributes are of a kind that this file system has not");
    }
    drain(channel);
    return {};
}

Result<> fileOut(const CopySource& source, DataChannel& channel) {
    std::vector<char> buffer(kChunkBytes);
    // The length that was announced: a log may grow while it is read. What has none (files of
    // /proc) is read to its end.
    uint64_t left = source.size == 0 ? UINT64_MAX : source.size;
    while (left > 0) {
        const size_t wanted = std::min<uint64_t>(left, buffer.size());
        const ssize_t n = ::read(source.fd.get(), buffer.data(), wanted);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno("read");
        if (n == 0) break;
        ARCA_CHECK(channel.write({buffer.data(), static_cast<size_t>(n)}));
        left -= static_cast<uint64_t>(n);
    }
    return {};
}

}  // namespace

Result<> prepareCopyIn(const CopyInRequest& request) {
    if (request.create_parents) ARCA_CHECK(request.path.parent().makeDirs(0755));
    return {};
}

Result<> copyIn(const CopyInRequest& request, DataChannel& channel, const archive::Limits& limits) {
    return request.is_archive ? archiveIn(request, channel, limits) : fileIn(request, channel);
}

Result<CopySource> openCopySource(const GuestPath& path) {
    // Looked at before it is opened: opening a device or a FIFO would be a deed of its own.
    ARCA_TRY(const struct stat st, statFile(path));
    if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)) {
        return fail(Code::kInvalidArgument, path.text() + ": neither a file nor a folder");
    }
    CopySource out;
    ARCA_TRY(out.fd, path.open(O_RDONLY | O_NONBLOCK | O_NOCTTY));
    struct stat now {};
    if (::fstat(out.fd.get(), &now) != 0) return failErrno("stat " + path.text());
    if ((now.st_mode & S_IFMT) != (st.st_mode & S_IFMT)) {
        return fail(Code::kInternal, path.text() + ": it changed meanwhile");
    }
    out.is_archive = S_ISDIR(now.st_mode);
    if (!out.is_archive) out.size = static_cast<uint64_t>(now.st_size);
    return out;
}

Result<> copyOut(const CopySource& source, DataChannel& channel, archive::Fidelity fidelity,
                 const archive::Limits& limits) {
    if (source.is_archive) {
        const archive::ByteSink sink = [&channel](std::string_view data) {
            return channel.write(data);
        };
        ARCA_CHECK(archive::packTree(source.fd.get(), sink, fidelity, limits));
    } else {
        ARCA_CHECK(fileOut(source, channel));
    }
    channel.finishWriting();
    return {};
}

}  // namespace arca::vminitd

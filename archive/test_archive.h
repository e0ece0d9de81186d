// Archives that tests make, with what no tool would make, and packing and unpacking in memory.
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "archive/archive.h"

namespace arca::archive {

struct TestEntry {
    std::string path;
    unsigned type = AE_IFREG;
    std::string content{};  // or the target of a symlink
    mode_t mode = 0644;
    std::string hardlink{};
};

inline std::string archiveOf(const std::vector<TestEntry>& entries) {
    std::string out(size_t{1} << 20U, '\0');
    size_t used = 0;
    struct archive* a = ::archive_write_new();
    (void)::archive_write_set_format_pax(a);
    (void)::archive_write_add_filter_gzip(a);
    (void)::archive_write_open_memory(a, out.data(), out.size(), &used);
    for (const TestEntry& entry : entries) {
        struct archive_entry* e = ::archive_entry_new();
        ::archive_entry_set_pathname(e, entry.path.c_str());
        ::archive_entry_set_filetype(e, entry.type);
        ::archive_entry_set_perm(e, entry.mode);
        ::archive_entry_set_uid(e, ::geteuid());
        ::archive_entry_set_gid(e, ::getegid());
        const bool file = entry.type == AE_IFREG && entry.hardlink.empty();
        ::archive_entry_set_size(e, file ? static_cast<int64_t>(entry.content.size()) : 0);
        if (entry.type == AE_IFLNK) ::archive_entry_set_symlink(e, entry.content.c_str());
        if (!entry.hardlink.empty()) ::archive_entry_set_hardlink(e, entry.hardlink.c_str());
        (void)::archive_write_header(a, e);
        if (file) (void)::archive_write_data(a, entry.content.data(), entry.content.size());
        ::archive_entry_free(e);
    }
    (void)::archive_write_close(a);
    (void)::archive_write_free(a);
    out.resize(used);
    return out;
}

inline base::Result<Unpacked> unpackBytes(int dir_fd, const std::string& bytes,
                                          Fidelity fidelity = Fidelity::kProtocol,
                                          const Limits& limits = {}, bool root_is_new = false) {
    size_t at = 0;
    const ByteSource source = [&bytes, &at](char* to, size_t size) -> base::Result<size_t> {
        const size_t n = std::min(size, bytes.size() - at);
        bytes.copy(to, n, at);
        at += n;
        return n;
    };
    return unpackTree(dir_fd, source, root_is_new, fidelity, limits);
}

inline base::Result<std::string> packBytes(int dir_fd, Fidelity fidelity = Fidelity::kProtocol,
                                           const Limits& limits = {}) {
    std::string out;
    const ByteSink sink = [&out](std::string_view data) -> base::Result<> {
        out += data;
        return {};
    };
    ARCA_CHECK(packTree(dir_fd, sink, fidelity, limits));
    return out;
}

}  // namespace arca::archive

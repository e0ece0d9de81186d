// Unpacking archives: whatever they say, nothing outside of the folder changes.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "archive/archive.h"
#include "base/files.h"
#include "base/log.h"
#include "base/temp_dir.h"

namespace {

using namespace arca;

void check(bool claim) {
    if (!claim) std::abort();
}

// A folder with a victim beside the one that is unpacked into, and symlinks to it inside.
struct Place {
    Place() {
        base::log::Options quiet;
        quiet.level = base::log::Level::kError;
        (void)base::log::setUp(quiet);
        check(::mkdirat(outside.fd(), "victims", 0755) == 0);
        const base::UniqueFd file(
            ::openat(outside.fd(), "victims/f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        check(base::writeAll(file.get(), "mine").has_value());
    }
    base::UniqueFd freshRoot() const {
        check(base::removeTree(outside.fd(), "root").has_value());
        check(::mkdirat(outside.fd(), "root", 0755) == 0);
        base::UniqueFd root(::openat(outside.fd(), "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        check(::symlinkat("../victims", root.get(), "l") == 0);
        check(::symlinkat((outside.path() + "/victims/f").c_str(), root.get(), "f") == 0);
        return root;
    }
    void checkUntouched() const {
        struct stat st {};
        check(::fstatat(outside.fd(), "victims/f", &st, AT_SYMLINK_NOFOLLOW) == 0);
        check(st.st_size == 4 && st.st_mode == (S_IFREG | 0600) && st.st_nlink == 1);
        check(::fstatat(outside.fd(), "victims", &st, AT_SYMLINK_NOFOLLOW) == 0);
        check(st.st_mode == (S_IFDIR | 0755) && base::listDir(outside.fd())->size() == 2);
        check(base::listDir(outside.fd(), "victims")->size() == 1);
    }
    base::TempDir outside;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const Place place;
    for (const auto fidelity : {archive::Fidelity::kProtocol, archive::Fidelity::kExact}) {
        const base::UniqueFd root = place.freshRoot();
        std::string_view left(reinterpret_cast<const char*>(data), size);
        const archive::ByteSource source = [&left](char* to,
                                                   size_t wanted) -> base::Result<size_t> {
            const size_t n = left.copy(to, wanted);
            left.remove_prefix(n);
            return n;
        };
        const auto done =
            archive::unpackTree(root.get(), source, true, fidelity,
                                {.entries = 50, .bytes = 1 << 20, .depth = 8, .links = 20});
        if (done) check(done->entries + done->skipped > 0);
        place.checkUntouched();
    }
    return 0;
}

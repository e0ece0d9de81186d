#include "vminitd/copy_memory.h"

#include <boost/test/unit_test.hpp>
#include <optional>

#include "vminitd/test_folder.h"
#include "vminitd/vm_boot.h"

namespace arca::vminitd {
namespace {

// A cgroup whose tmpfs files have 4096 bytes, in a text as long as the kernel's.
struct CgroupFolder : TestFolder {
    CgroupFolder() {
        write("memory.high", "0");
        write("memory.stat", "shmem 4096\nfile 8192\nkernel 12288\nanon 1048576\nfile_mapped 0\n");
    }
    [[nodiscard]] std::string high() const { return *base::readFile("memory.high", 100, fd()); }
};

BOOST_AUTO_TEST_SUITE(copy_memory)

BOOST_AUTO_TEST_CASE(the_limit_comes_back_with_the_last_user_above_the_files_in_memory) {
    const CgroupFolder cgroup;
    CopyMemory memory(cgroup.path());
    std::optional<CopyMemory::Use> first(memory);
    BOOST_TEST(cgroup.high() == "max");
    std::optional<CopyMemory::Use> second(memory);
    first.reset();
    BOOST_TEST(cgroup.high() == "max");
    second.reset();
    BOOST_TEST(cgroup.high() == std::to_string(kAgentMemoryHigh + 4096));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd

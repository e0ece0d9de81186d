// What of booting can be tried without a VM.
#include "vminitd/vm_boot.h"

#include <linux/magic.h>

#include <boost/test/unit_test.hpp>
#include <vector>

#include "vminitd/test_folder.h"
#include "vminitd/vm_modules.h"

namespace arca::vminitd {
namespace {

BOOST_AUTO_TEST_SUITE(vm_boot)

BOOST_AUTO_TEST_CASE(only_memory_can_be_the_initial_root) {
    BOOST_TEST(isInitialRoot(RAMFS_MAGIC));
    BOOST_TEST(isInitialRoot(TMPFS_MAGIC));
    BOOST_TEST(!isInitialRoot(EXT4_SUPER_MAGIC));
    BOOST_TEST(!isInitialRoot(0x6573'5546));  // FUSE, which virtiofs is
}

BOOST_AUTO_TEST_CASE(the_first_half_of_the_modules_ends_with_the_transport) {
    BOOST_TEST(transportEnd({"0-virtio.ko", "1-vmw_vsock_virtio_transport_common.ko",
                             "2-vmw_vsock_virtio_transport.ko", "3-fuse.ko"}) == 3U);
    BOOST_TEST(transportEnd({"0-virtio.ko", "1-fuse.ko"}) == 2U);
    BOOST_TEST(transportEnd({}) == 0U);
}

BOOST_AUTO_TEST_CASE(no_modules_are_no_wait) {
    const auto loop = std::move(*EventLoop::make());
    for (const std::string& folder : {std::string(), std::string("/no/such/folder")}) {
        VmModules modules(folder);
        modules.loadTransport();
        int calls = 0;
        modules.whenLoaded([&] { ++calls; });
        BOOST_TEST(calls == 0);
        modules.loadRest(*loop);
        BOOST_TEST(calls == 1);
        modules.whenLoaded([&] { ++calls; });
        BOOST_TEST(calls == 2);
        modules.waitLoaded();
    }
}

// Neither a file that is no module nor a name that leads elsewhere keeps anybody waiting.
BOOST_AUTO_TEST_CASE(modules_that_cannot_be_loaded_are_passed_over) {
    const TestFolder folder;
    folder.write("load-order", "vmw_vsock_virtio_transport.ko\n../../etc/passwd\n\nmissing.ko\n");
    folder.write("vmw_vsock_virtio_transport.ko", "not an ELF file");
    const auto loop = std::move(*EventLoop::make());
    VmModules modules(folder.path());
    modules.loadTransport();
    modules.whenLoaded([&] { loop->stop(); });
    modules.loadRest(*loop);
    loop->run();
    modules.waitLoaded();
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd

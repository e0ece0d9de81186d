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

BOOST_AUTO_TEST_CASE(a_module_is_found_by_its_name) {
    BOOST_TEST(moduleName("07-virtiofs.ko") == "virtiofs");
    BOOST_TEST(moduleName("virtiofs.ko") == "virtiofs");
    BOOST_TEST(moduleName("9p.ko") == "9p");
}

BOOST_AUTO_TEST_CASE(no_modules_are_no_wait) {
    const auto loop = std::move(*EventLoop::make());
    for (const std::string& folder : {std::string(), std::string("/no/such/folder")}) {
        VmModules modules(folder);
        modules.loadTransport();
        int calls = 0;
        modules.whenLoaded({}, [&] { ++calls; });
        modules.whenLoaded(driversForMount("virtiofs", {}), [&] { ++calls; });
        BOOST_TEST(calls == 2);
        modules.loadRest(*loop, std::chrono::milliseconds(0));
        modules.waitLoaded({});
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
    modules.whenLoaded({}, [&] { loop->stop(); });
    modules.loadRest(*loop, std::chrono::milliseconds(0));
    loop->run();
    modules.waitLoaded({});
}

BOOST_AUTO_TEST_CASE(what_needs_one_module_waits_for_no_later_one) {
    const TestFolder folder;
    folder.write("load-order", "00-vmw_vsock_virtio_transport.ko\n01-virtiofs.ko\n02-ext4.ko\n");
    const auto loop = std::move(*EventLoop::make());
    VmModules modules(folder.path());
    modules.loadTransport();
    std::string order;
    modules.whenLoaded({}, [&] {
        order += "all ";
        loop->stop();
    });
    modules.whenLoaded(driversForMount("virtiofs", {}), [&] { order += "virtiofs "; });
    modules.whenLoaded(driversForMount("proc", {}), [&] { order += "none "; });
    BOOST_TEST(order == "none ");
    modules.loadRest(*loop, std::chrono::milliseconds(0));
    loop->run();
    BOOST_TEST(order == "none virtiofs all ");
}

BOOST_AUTO_TEST_CASE(nothing_is_loaded_before_it_is_wanted_or_the_pause_is_over) {
    const TestFolder folder;
    folder.write("load-order", "00-vmw_vsock_virtio_transport.ko\n01-virtiofs.ko\n02-ext4.ko\n");
    const auto loop = std::move(*EventLoop::make());
    VmModules modules(folder.path());
    modules.loadTransport();
    bool all = false;
    modules.afterAll([&] { all = true; });
    modules.loadRest(*loop, std::chrono::hours(1));
    modules.whenLoaded(driversForMount("virtiofs", {}), [&] { loop->stop(); });
    loop->run();
    BOOST_TEST(!all);
    modules.whenLoaded({}, [&] { loop->stop(); });
    loop->run();
    BOOST_TEST(all);
}

BOOST_AUTO_TEST_CASE(a_process_waits_for_drivers_that_it_may_use) {
    using Kind = DriverNeed::Kind;
    spec::Spec config;
    config.process.emplace();
    BOOST_TEST((driversForProcess(config).kind == Kind::kAll));  // the agent's own capabilities
    config.process->capabilities.emplace();
    config.process->capabilities->bounding = {"CAP_KILL"};
    config.mounts = {{"/proc", "proc", "proc", {}, {}, {}},
                     {"/d", "ext4", "/d", {"rbind"}, {}, {}}};
    BOOST_TEST((driversForProcess(config).kind == Kind::kNone));
    config.annotations["io.arca.network"] = "none";
    BOOST_TEST((driversForProcess(config).kind == Kind::kNone));
    config.annotations["io.arca.network"] = "forwarded";
    BOOST_TEST((driversForProcess(config).kind == Kind::kSome));
    BOOST_TEST(
        (driversForProcess(config).modules == std::vector<std::string>{"tun", "virtio_net"}));
    config.mounts.push_back({"/o", "overlay", "o", {}, {}, {}});
    BOOST_TEST((driversForProcess(config).kind == Kind::kAll));
    config.mounts.pop_back();
    config.linux.devices.emplace_back();
    BOOST_TEST((driversForProcess(config).kind == Kind::kAll));
    config.linux.devices.clear();
    config.process->capabilities->bounding.push_back("CAP_SYS_ADMIN");
    BOOST_TEST((driversForProcess(config).kind == Kind::kAll));
    BOOST_TEST((driversForLink("lo").kind == Kind::kNone));
    BOOST_TEST((driversForLink("eth0").kind == Kind::kAll));
    BOOST_TEST((driversForMount("ext4", {}).kind == Kind::kAll));
    BOOST_TEST((driversForMount("none", {"ro", "rbind"}).kind == Kind::kNone));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd

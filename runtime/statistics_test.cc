#include "runtime/statistics.h"

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include "sandbox_context.pb.h"

namespace arca::runtime {
namespace {

using nlohmann::json;
namespace api = com::apple::containerization::sandbox::v3;

json shown(const api::ContainerStats& stats) {
    return json::parse(statisticsJson(stats));
}

BOOST_AUTO_TEST_SUITE(statistics)

BOOST_AUTO_TEST_CASE(huge_pages_are_by_size) {
    api::ContainerStats stats;
    BOOST_TEST(shown(stats).at("hugetlb") == json::object());
    api::HugePageStats& pages = *stats.add_huge_pages();
    pages.set_page_size("2MB");
    pages.set_usage_bytes(uint64_t{1} << 40U);
    pages.set_max_usage_bytes(7);
    pages.set_failures(3);
    stats.add_huge_pages()->set_page_size("1GB");
    BOOST_TEST(shown(stats).at("hugetlb") == json::parse(R"({
        "2MB": {"usage": 1099511627776, "max": 7, "failcnt": 3},
        "1GB": {"usage": 0, "max": 0, "failcnt": 0}})"));
}

BOOST_AUTO_TEST_CASE(rdma_is_a_list_of_devices_in_32_bits) {
    api::ContainerStats stats;
    BOOST_TEST(!shown(stats).contains("rdma"));
    api::RdmaStats& device = *stats.add_rdma();
    device.set_device("mlx4_0");
    device.set_handles(2);
    device.set_objects(2000);
    device.set_handle_limit(5);
    device.set_object_limit(~uint64_t{0});
    BOOST_TEST(shown(stats).at("rdma") == json::parse(R"({
        "rdma_current": [{"device": "mlx4_0", "hca_handles": 2, "hca_objects": 2000}],
        "rdma_limit": [{"device": "mlx4_0", "hca_handles": 5, "hca_objects": 4294967295}]})"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime

#include "vminitd/rpc_statistics.h"

#include <boost/test/unit_test.hpp>

namespace arca::vminitd {
namespace {

BOOST_AUTO_TEST_SUITE(rpc_statistics)

BOOST_AUTO_TEST_CASE(huge_pages_and_rdma_are_told) {
    ContainerStatistics from;
    from.huge_pages = {{"2MB", 4096, 8192, 3}, {"1GB", 1, 0, 0}};
    from.rdma = {{"mlx4_0", 2, 2000, 5, kNoLimit}};
    wire::ContainerStats to;
    fillStatistics("c", from, to);
    BOOST_TEST_REQUIRE(to.huge_pages_size() == 2);
    BOOST_TEST(to.huge_pages(0).page_size() == "2MB");
    BOOST_TEST(to.huge_pages(0).usage_bytes() == 4096U);
    BOOST_TEST(to.huge_pages(0).max_usage_bytes() == 8192U);
    BOOST_TEST(to.huge_pages(0).failures() == 3U);
    BOOST_TEST(to.huge_pages(1).page_size() == "1GB");
    BOOST_TEST_REQUIRE(to.rdma_size() == 1);
    BOOST_TEST(to.rdma(0).device() == "mlx4_0");
    BOOST_TEST(to.rdma(0).handles() == 2U);
    BOOST_TEST(to.rdma(0).objects() == 2000U);
    BOOST_TEST(to.rdma(0).handle_limit() == 5U);
    BOOST_TEST(to.rdma(0).object_limit() == kNoLimit);
}

BOOST_AUTO_TEST_CASE(our_own_groups_come_when_no_category_is_named) {
    wire::ContainerStatisticsRequest request;
    BOOST_TEST(selectionOf(request).huge_pages);
    BOOST_TEST(selectionOf(request).rdma);
    request.add_categories(wire::STAT_CATEGORY_MEMORY);
    BOOST_TEST(selectionOf(request).memory);
    BOOST_TEST(!selectionOf(request).huge_pages);
    BOOST_TEST(!selectionOf(request).rdma);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd

#include "vmexec/capabilities.h"
#include <boost/test/unit_test.hpp>

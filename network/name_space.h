// Interfaces of other network namespaces, and their move from one to another.
//
// A namespace is given by a descriptor of it, borrowed. Any thread; none changes its own namespace.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::network {

// Of the calling thread.
base::Result<base::UniqueFd> openOwnNamespace();

// A new one, which nobody is in: it goes with its last descriptor or interface. `inside` runs in
// it, on a thread of its own.
base::Result<base::UniqueFd> makeNamespace(const std::function<base::Result<>()>& inside);

struct Found {
    unsigned index;
    std::string name;
};
// kNotFound when there is none.
base::Result<Found> findByName(int name_space, const std::string& name);
base::Result<Found> findByMac(int name_space, const std::string& mac);

// Moves the interface `index` of the namespace `from` to the namespace `to`, where it has the name
// `name` ("%d" in it: the first number that is free), is down and without addresses. EEXIST when
// there is an interface of that name.
base::Result<> moveInterface(int from, unsigned index, int to, const std::string& name);

}  // namespace arca::network

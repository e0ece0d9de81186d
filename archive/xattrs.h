// Extended attributes between a file and an archive's entry.
#pragma once

#include <archive_entry.h>

#include <cstdint>

#include "base/result.h"

namespace arca::archive {

// `fd` may be O_PATH, also of a symlink: what it stands for itself is meant.

// Adds those of the file to `entry`. A file system without any has none.
base::Result<> readAttributes(int fd, struct archive_entry* entry);

// Whether the file has any.
base::Result<bool> hasAttributes(int fd);

// Gives the file those of `entry`. Gives how many the file system here does not have.
base::Result<uint64_t> writeAttributes(int fd, struct archive_entry* entry);

}  // namespace arca::archive

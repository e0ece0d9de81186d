#include "vmexec/mount_options.h"

#include "vmexec/exec_lookup.h"

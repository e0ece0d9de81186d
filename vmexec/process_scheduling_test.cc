#include "vmexec/process_scheduling.h"

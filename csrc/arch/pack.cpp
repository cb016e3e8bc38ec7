// SPDX-License-Identifier: MIT
// What the kernels of one arch share, in its namespace.
#include "../drivers/pack_once.hpp"

#pragma once

#include <string>

namespace gantry::engine {

// "adjective_surname", at random; from the third attempt on with a number behind it, which ends the
// search for a free name when most are taken.
std::string RandomName(int attempt);

}  // namespace gantry::engine

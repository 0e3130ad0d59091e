// Who asks: the namespace everything is looked up in, and the lease that what is made is added to.
#pragma once

#include <string>

namespace gantry::metadata {

struct Caller {
  std::string namespace_name;
  std::string lease;  // Empty: none.
};

}  // namespace gantry::metadata

// Containers, images and volumes as `docker inspect` shows them: Docker's keys, Docker's order,
// what is ours alone under "Gantry" (E.4).
#pragma once

#include "ctl/value.h"
#include "gantry/engine/v1/engine.pb.h"
#include "gantry/image/v1/image.pb.h"

namespace gantry::ctl {

Value ContainerValue(const engine::v1::ContainerDetails& details, bool with_size);
Value ImageValue(const image::v1::ImageDetails& details);
Value VolumeValue(const engine::v1::Volume& volume);

}  // namespace gantry::ctl

//! What a definition may ask for.

use modal_api::wire;
use tonic::Status;

use crate::{
    core::{Core, Inner},
    images::ImageRow,
    mounts,
    objects::{self, Kind},
    rows::Rows,
    schedules,
};

/// As on Modal: 24 hours.
const MAX_TIMEOUT: u32 = 24 * 3600;

pub(crate) fn check(core: &Core, inner: &Inner, definition: &wire::Function) -> Result<(), Status> {
    let rows = &inner.state.rows;
    if core.python.is_none() {
        return Err(Status::failed_precondition(
            "this emulator runs no functions of others\nhint: start it with --python, a Python that has the modal package",
        ));
    }
    if definition.timeout_secs > 0 {
        check_timeout(definition.timeout_secs)?;
    }
    check_objects(rows, &definition.secret_ids, &definition.volume_mounts)?;
    if !definition.image_id.is_empty() && !rows.has::<ImageRow>(&definition.image_id) {
        return Err(Status::not_found(format!(
            "Image {} not found",
            definition.image_id
        )));
    }
    for mount_id in &definition.mount_ids {
        mounts::check(rows, mount_id)?;
    }
    if let Some(schedule) = &definition.schedule {
        schedules::check(schedule)?;
    }
    Ok(())
}

pub(crate) fn check_timeout(seconds: u32) -> Result<(), Status> {
    if (1..=MAX_TIMEOUT).contains(&seconds) {
        Ok(())
    } else {
        Err(Status::invalid_argument(format!(
            "a timeout of {seconds} s: 1 to {MAX_TIMEOUT} are allowed"
        )))
    }
}

pub(crate) fn check_objects(
    rows: &Rows,
    secret_ids: &[String],
    volume_mounts: &[wire::VolumeMount],
) -> Result<(), Status> {
    for secret_id in secret_ids {
        objects::get(rows, Kind::Secret, secret_id)?;
    }
    for mount in volume_mounts {
        objects::get(rows, Kind::Volume, &mount.volume_id)?;
        if !mount.mount_path.starts_with('/') {
            return Err(Status::invalid_argument(format!(
                "a volume at '{}': the path must be absolute",
                mount.mount_path
            )));
        }
    }
    Ok(())
}

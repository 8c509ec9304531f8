//! Health checks between images and containers: a new container has the image's under the user's, and a
//! committed image has the container's.

use anyhow::Result;

use crate::container::HealthCheck;
use crate::error::Failure;
use crate::image::Healthcheck;

/// What is asked for; `None` by nobody.
///
/// # Errors
/// The user's numbers make no sense. Those of an image are not looked at, as with Docker: they are taken for
/// what they can be.
pub(super) fn merged(image: Option<&Healthcheck>, user: Option<HealthCheck>) -> Result<Option<HealthCheck>> {
    if let Some(fault) = user.as_ref().and_then(HealthCheck::fault) {
        return Err(Failure::usage(fault).into());
    }
    let image = image.map(|image| HealthCheck {
        test: image.test.clone().unwrap_or_default(),
        interval: image.interval,
        timeout: image.timeout,
        start_period: image.start_period,
        start_interval: image.start_interval,
        retries: image.retries,
    });
    Ok(match (user, image) {
        (Some(user), Some(image)) => Some(user.over(image)),
        (user, image) => user.or(image),
    })
}

/// As an image brings it along.
pub(super) fn for_image(check: &HealthCheck) -> Healthcheck {
    Healthcheck {
        test: Some(check.test.clone()).filter(|test| !test.is_empty()),
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// What the user should know of it; Docker tells its daemon's log.
pub(super) fn warning(check: &HealthCheck) -> Option<String> {
    let kind = check.unknown_kind()?;
    Some(format!("Unknown healthcheck type '{kind}' (expected 'CMD'): nothing will be checked"))
}

//! `update`.

use super::container::one_by_one;
use super::create_request;
use super::output;
use super::resources::{flags, resources};
use super::spec::{self, Arity, Spec, value};
use crate::engine::request::UpdateRequest;

pub(super) static UPDATE: Spec = Spec {
    name: "update",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: true,
    unsupported: &["--cpu-rt-period", "--cpu-rt-runtime", "--kernel-memory"],
    flags: |command| {
        flags(command).arg(value("restart", None, "string", "Restart policy to apply when a container exits"))
    },
    run: |session, matches| {
        let policy = spec::text(matches, "restart").filter(|text| !text.is_empty());
        let restart = policy.map(|text| create_request::restart_policy(&text)).transpose()?;
        let request = UpdateRequest { resources: resources(matches)?, restart };
        one_by_one(session, matches, |engine, reference| {
            engine.update(reference, &request)?.iter().for_each(|warning| output::warn(warning));
            Ok(())
        })
    },
};

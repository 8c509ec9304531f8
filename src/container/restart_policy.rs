//! The user's rule for what follows the end of a container's first process.

use serde::{Deserialize, Serialize};

/// When a container that has ended is started again (`--restart`). A container that the user ended
/// never is, whatever its policy ([`State::stopped_by_user`](super::State::stopped_by_user)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After every end.
    Always,
    /// After every end; differs from `Always` only in what a boot of the machine does with a
    /// container that the user had stopped.
    UnlessStopped,
    /// After an exit code other than 0.
    OnFailure {
        /// So many times at most; 0 is without limit.
        #[serde(default)]
        max_retries: u32,
    },
}

impl RestartPolicy {
    /// No policy at all.
    pub fn is_no(&self) -> bool {
        *self == RestartPolicy::No
    }

    /// Docker's word for it.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
            RestartPolicy::OnFailure { .. } => "on-failure",
        }
    }

    /// How often it starts a container again at most; 0 is without limit.
    pub fn max_retries(self) -> u32 {
        match self {
            RestartPolicy::OnFailure { max_retries } => max_retries,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_recorded_by_their_names() {
        for (policy, text) in [
            (RestartPolicy::No, r#"{"name":"no"}"#),
            (RestartPolicy::Always, r#"{"name":"always"}"#),
            (RestartPolicy::UnlessStopped, r#"{"name":"unless-stopped"}"#),
            (RestartPolicy::OnFailure { max_retries: 3 }, r#"{"name":"on-failure","max_retries":3}"#),
        ] {
            assert_eq!(serde_json::to_string(&policy).unwrap(), text);
            assert_eq!(serde_json::from_str::<RestartPolicy>(text).unwrap(), policy);
            assert!(text.contains(policy.name()));
        }
    }
}

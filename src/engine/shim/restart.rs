//! Whether a container that has ended is started again, and after how long. Pure.

use std::time::Duration;

use crate::container::RestartPolicy;

/// The first wait between two runs, doubled from then on (Docker's numbers, all three).
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length is a good one: the next wait is the first again.
const STEADY: Duration = Duration::from_secs(10);

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// What the user asked for, as it is recorded at the time of the end.
    pub(super) policy: RestartPolicy,
    /// How the run ended.
    pub(super) code: i32,
    /// The user told it to.
    pub(super) stopped_by_user: bool,
    /// How often the policy has started the container already.
    pub(super) restarts: u32,
    /// How long the run lasted; nothing when the start failed.
    pub(super) lasted: Duration,
    /// The wait before this run, if the policy started it.
    pub(super) waited: Option<Duration>,
}

/// How long to wait before the container is started again; `None` when it is not.
pub(super) fn after(end: &End) -> Option<Duration> {
    let covered = match end.policy {
        RestartPolicy::No => false,
        // They differ when the machine boots, not here.
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max_retries } => end.code != 0 && (max_retries == 0 || end.restarts < max_retries),
    };
    if !covered || end.stopped_by_user {
        return None;
    }
    Some(match end.waited {
        Some(waited) if end.lasted < STEADY => (waited * 2).min(LONGEST),
        _ => FIRST,
    })
}

#[cfg(test)]
mod tests {
    use RestartPolicy::{Always, No, OnFailure, UnlessStopped};

    use super::*;

    fn end(policy: RestartPolicy, code: i32) -> End {
        End { policy, code, stopped_by_user: false, restarts: 0, lasted: Duration::from_secs(1), waited: None }
    }

    #[test]
    fn the_policy_decides_by_the_exit_code() {
        for (policy, after_success, after_failure) in [
            (No, false, false),
            (Always, true, true),
            (UnlessStopped, true, true),
            (OnFailure { max_retries: 0 }, false, true),
            (OnFailure { max_retries: 1 }, false, true),
        ] {
            assert_eq!(after(&end(policy, 0)).is_some(), after_success, "{policy:?}");
            for code in [1, 127, 137, 255] {
                assert_eq!(after(&end(policy, code)).is_some(), after_failure, "{policy:?} {code}");
            }
        }
    }

    #[test]
    fn the_users_word_is_the_last() {
        for policy in [No, Always, UnlessStopped, OnFailure { max_retries: 0 }] {
            for code in [0, 143] {
                assert_eq!(after(&End { stopped_by_user: true, ..end(policy, code) }), None);
            }
        }
    }

    #[test]
    fn failures_are_counted_and_others_are_not() {
        for (max_retries, restarts, again) in
            [(3, 0, true), (3, 2, true), (3, 3, false), (3, 4, false), (0, u32::MAX, true)]
        {
            let end = End { restarts, ..end(OnFailure { max_retries }, 1) };
            assert_eq!(after(&end).is_some(), again, "{restarts} of {max_retries}");
        }
        assert!(after(&End { restarts: u32::MAX, ..end(Always, 1) }).is_some());
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut waits = Vec::new();
        let mut waited = None;
        for _ in 0..12 {
            waited = after(&End { waited, ..end(Always, 1) });
            waits.push(waited.unwrap().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        let steady = End { waited, lasted: STEADY, ..end(Always, 1) };
        assert_eq!(after(&steady), Some(FIRST));
        assert_eq!(after(&End { lasted: STEADY - Duration::from_nanos(1), ..steady }), Some(LONGEST));
    }
}

//! Several layers at once, on threads that live no longer than the work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

/// Calls `work` for each of `items`, in order, at most `workers` at a time. The first error is the one that is
/// told; after it no other item is begun, and `stop` is set, for whoever is in the middle of one.
pub(in crate::image) fn each<T: Sync>(
    items: &[T],
    workers: usize,
    stop: &AtomicBool,
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let take = || {
        while !stop.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = work(item) {
                // Told before the others stop, or what they say of it would be first.
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        // This thread is one of them: a single layer needs no other.
        (1..workers.min(items.len())).for_each(|_| drop(scope.spawn(take)));
        take();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn all_are_done_and_the_first_error_stops() {
        for workers in [0, 1, 3, 100] {
            let sum = AtomicUsize::new(0);
            let add = |item: &usize| {
                sum.fetch_add(*item, Ordering::Relaxed);
                Ok(())
            };
            each(&(1..=100).collect::<Vec<_>>(), workers, &AtomicBool::new(false), add).unwrap();
            assert_eq!(sum.into_inner(), 5050);
        }
        let done = AtomicUsize::new(0);
        let fail = |item: &usize| match item {
            3 => bail!("third"),
            _ => {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        };
        let error = each(&(1..=1000).collect::<Vec<_>>(), 1, &AtomicBool::new(false), fail).unwrap_err();
        assert_eq!((error.to_string().as_str(), done.into_inner()), ("third", 2));
    }
}

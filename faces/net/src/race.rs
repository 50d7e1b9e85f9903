//! Racing connection attempts to several addresses (RFC 8305, "happy eyeballs").

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::Addr;

/// Delay before the next attempt starts alongside the current ones (RFC 8305, 8).
pub(crate) const DELAY: Duration = Duration::from_millis(250);

/// Alternates the families, the first address's first, and keeps the order within each (RFC 8305, 4).
pub(crate) fn interleaved(addresses: Vec<Addr>) -> Vec<Addr> {
    let is_v6 = |address: &Addr| address.ip_addr().is_some_and(|ip| ip.is_ipv6());
    let Some(leads) = addresses.first().map(is_v6) else { return addresses };
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| is_v6(address) == leads);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            return order;
        }
        order.extend(one.into_iter().chain(other));
    }
}

/// Starts attempts in this order, one after each `pause` and at once after a failure. Drops all but the first
/// that succeeds.
///
/// # Errors
/// All attempts failed: each address with its error, in the order of the failures.
pub(crate) async fn first_connected<A, T, E, Attempt, Pause>(
    addresses: Vec<A>,
    mut begin: impl FnMut(&A) -> Attempt,
    mut pause: impl FnMut() -> Pause,
) -> Result<T, Vec<(A, E)>>
where
    Attempt: Future<Output = Result<T, E>>,
    Pause: Future<Output = ()>,
{
    let mut waiting = VecDeque::from(addresses);
    let mut attempts: Vec<(A, Pin<Box<Attempt>>)> = Vec::new();
    let mut failures = Vec::new();
    while let Some(address) = waiting.pop_front() {
        let attempt = begin(&address);
        attempts.push((address, Box::pin(attempt)));
        let (failed_before, is_last) = (failures.len(), waiting.is_empty());
        let mut delay = pin!(pause());
        let ended = poll_fn(|cx| {
            if let Some(connection) = poll_attempts(&mut attempts, &mut failures, cx) {
                return Poll::Ready(Some(connection));
            }
            let begins_next =
                !is_last && (failures.len() > failed_before || delay.as_mut().poll(cx).is_ready());
            if begins_next || attempts.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        });
        if let Some(connection) = ended.await {
            return Ok(connection);
        }
    }
    Err(failures)
}

/// Polls each attempt and removes failed ones.
fn poll_attempts<A, T, E, Attempt: Future<Output = Result<T, E>>>(
    attempts: &mut Vec<(A, Pin<Box<Attempt>>)>,
    failures: &mut Vec<(A, E)>,
    cx: &mut Context<'_>,
) -> Option<T> {
    let mut at = 0;
    while let Some((_, attempt)) = attempts.get_mut(at) {
        match attempt.as_mut().poll(cx) {
            Poll::Ready(Ok(connection)) => return Some(connection),
            Poll::Ready(Err(error)) => failures.push((attempts.remove(at).0, error)),
            Poll::Pending => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests;

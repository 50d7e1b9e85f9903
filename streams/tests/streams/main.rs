//! Both ends as their users have them, and what others may do to them.

mod certificates;
mod common;
mod hostile;
mod slow;
mod tls;
mod transports;

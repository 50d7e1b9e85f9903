//! Both ends as their users have them, and what others may do to them.

mod between;
mod certificates;
mod common;
mod hostile;
mod office;
mod proxies;
mod slow;
mod tls;
mod transports;
mod turn;
